//! The OpenAPI document, from the table of routes. What a route takes and answers is said here, with the types of
//! `sage_api` themselves.

use std::sync::OnceLock;

use axum::Json;
use sage_api::api::{
    ApiError, CSRF_HEADER, Deleted, EventPage, FiguresNow, Graphs, Health, Info, JobDetail, JobPage, LogFiles,
    LoginLink, MOST_BYTES_OF_A_PIECE, MOST_EVENTS, MOST_JOBS, NewToken, Reports, SESSION_COOKIE, Shutdown, USUAL_JOBS,
};
use sage_api::job::{JobRecord, JobRequest, State as JobState};
use serde_json::{Value, json};
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, InfoBuilder, Object, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    Required, Response, ResponseBuilder, Schema, Type,
};
use utoipa::{PartialSchema, ToSchema};

use super::routes::{ROUTES, Route};

/// What a route answers when it has done what it should.
enum Answers {
    /// JSON of the schema of this name.
    Json(&'static str),
    /// Text of this kind.
    Text(&'static str),
    Nothing,
}

/// What a route takes and answers.
struct Said {
    status: u16,
    answers: Answers,
    /// Of the query: a name, its schema, and what it is.
    query: Vec<(&'static str, Object, String)>,
    /// The schema of the body, and whether there has to be one.
    body: Option<(&'static str, bool)>,
}

fn answers(status: u16, answers: Answers) -> Said {
    Said { status, answers, query: Vec::new(), body: None }
}

fn json_of(schema: &'static str) -> Said {
    answers(200, Answers::Json(schema))
}

impl Said {
    fn query(mut self, name: &'static str, kind: Type, about: impl Into<String>) -> Self {
        self.query.push((name, ObjectBuilder::new().schema_type(kind).build(), about.into()));
        self
    }

    /// A whole number from the least to the most, if there is a most.
    fn whole(mut self, name: &'static str, least: u64, most: Option<u64>, about: impl Into<String>) -> Self {
        let schema = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least)).maximum(most);
        self.query.push((name, schema.build(), about.into()));
        self
    }

    /// Text like this regular expression.
    fn like(mut self, name: &'static str, pattern: String, about: impl Into<String>) -> Self {
        let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
        self.query.push((name, schema.build(), about.into()));
        self
    }

    fn body(mut self, schema: &'static str, is_needed: bool) -> Self {
        self.body = Some((schema, is_needed));
        self
    }
}

/// What is said of a route; `None` if it is not one for programs.
fn said(route: &Route) -> Option<Said> {
    let piece = || {
        let limit = format!("The most bytes, 1 to {MOST_BYTES_OF_A_PIECE}.");
        let from = "The first byte, or minus how many before the end.";
        let text = answers(200, Answers::Text("text/plain")).query("from", Type::Integer, from);
        text.whole("limit", 1, Some(MOST_BYTES_OF_A_PIECE), limit)
    };
    let states = JobState::ALL.map(JobState::word).join("|");
    Some(match (route.method, route.path) {
        ("POST", "/api/v1/jobs") => answers(201, Answers::Json("JobRecord")).body("JobRequest", true),
        ("GET", "/api/v1/jobs") => json_of("JobPage")
            .like("state", format!("^(({states})(,({states}))*)?$"), "States, separated by commas; all without it.")
            .query("name", Type::String, "What the names have in them, whatever the case.")
            .whole("before", 0, None, "Jobs with smaller numbers.")
            .whole("limit", 1, Some(MOST_JOBS), format!("The most jobs, 1 to {MOST_JOBS}; {USUAL_JOBS} without it.")),
        ("GET", "/api/v1/jobs/{job}") => json_of("JobDetail"),
        ("DELETE", "/api/v1/jobs/{job}") => answers(204, Answers::Nothing).query(
            "force",
            Type::Boolean,
            "Whether a job that is not over is cancelled, and killed after 30 s.",
        ),
        ("GET", "/api/v1/jobs/{job}/events") => json_of("EventPage")
            .whole("after", 0, None, "Events that begin at this byte or later.")
            .whole("limit", 1, Some(MOST_EVENTS), format!("The most events, 1 to {MOST_EVENTS}.")),
        ("GET", "/api/v1/jobs/{job}/graph") => json_of("Graphs"),
        ("GET", "/api/v1/jobs/{job}/figures") => json_of("FiguresNow"),
        ("GET", "/api/v1/jobs/{job}/report") => json_of("Reports"),
        ("GET", "/api/v1/jobs/{job}/output" | "/api/v1/jobs/{job}/logs/{*name}") => piece(),
        ("GET", "/api/v1/jobs/{job}/logs") => json_of("LogFiles"),
        ("GET", "/api/v1/jobs/{job}/stream") => answers(200, Answers::Text("text/event-stream"))
            .whole("after", 0, None, "Events that begin at this byte or later.")
            .query("figures", Type::String, "`1` to be told figures, four times a second."),
        ("GET", "/api/v1/stream") => answers(200, Answers::Text("text/event-stream")),
        ("POST", path) if path.starts_with("/api/v1/jobs/{job}/") => answers(202, Answers::Json("JobRecord")),
        ("POST", "/api/v1/cleanup") => json_of("Deleted"),
        ("GET", "/api/v1/info") => json_of("Info"),
        ("GET", "/api/v1/health") => json_of("Health"),
        ("POST", "/api/v1/token/rotate") => json_of("NewToken"),
        ("POST", "/api/v1/login-link") => json_of("LoginLink"),
        ("POST", "/api/v1/shutdown") => answers(202, Answers::Nothing).body("Shutdown", false),
        ("GET", "/api/v1/openapi.json") => answers(200, Answers::Text("application/json")),
        ("GET", "/healthz" | "/readyz" | "/metrics") => answers(200, Answers::Text("text/plain")),
        _ => return None,
    })
}

/// The document.
pub(super) async fn openapi() -> Json<&'static Value> {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    Json(DOCUMENT.get_or_init(|| {
        // It is made of text and numbers.
        serde_json::to_value(document()).unwrap_or_else(|_| json!({}))
    }))
}

fn document() -> OpenApi {
    let mut paths = Paths::new();
    for route in ROUTES {
        if let Some(said) = said(route)
            && let Some(method) = method(route.method)
        {
            paths.add_path_operation(route.path.replace("{*", "{"), vec![method], operation(route, said));
        }
    }
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas())
        .security_scheme("token", SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()))
        .security_scheme(
            "session",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                SESSION_COOKIE,
                &format!("Of a browser. What changes something needs the header `{CSRF_HEADER}` as well."),
            ))),
        );
    let about = "Runs jobs, each in a process of its own under a reaper, and loses none when it is killed. \
        `{job}` is an \
                 id, a number, or the first four or more characters of an id.";
    let info = InfoBuilder::new()
        .title("The job manager of SAGE")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about))
        .build();
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

fn method(method: &str) -> Option<HttpMethod> {
    Some(match method {
        "GET" => HttpMethod::Get,
        "POST" => HttpMethod::Post,
        "DELETE" => HttpMethod::Delete,
        _ => return None,
    })
}

fn operation(route: &Route, said: Said) -> OperationBuilder {
    let words = route.path.split(['/', '{', '}', '*', '-', '.']).filter(|word| !word.is_empty());
    let id = [route.method.to_lowercase()].into_iter().chain(words.map(str::to_owned)).collect::<Vec<_>>().join("_");
    let mut operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(route.about))
        .response(said.status.to_string(), response(&said.answers));
    for (name, about) in [("job", "An id, a number, or the begin of an id."), ("name", "The name of a log file.")] {
        if route.path.contains(&format!("{{{name}}}")) || route.path.contains(&format!("{{*{name}}}")) {
            operation = operation.parameter(parameter(
                name,
                ParameterIn::Path,
                ObjectBuilder::new().schema_type(Type::String).build(),
                about,
            ));
        }
    }
    for (name, schema, about) in &said.query {
        operation = operation.parameter(parameter(name, ParameterIn::Query, schema.clone(), about));
    }
    if let Some((schema, is_needed)) = said.body {
        let required = if is_needed { Required::True } else { Required::False };
        let body = RequestBodyBuilder::new().content("application/json", content(schema)).required(Some(required));
        operation = operation.request_body(Some(body.build()));
    }
    if route.path == "/readyz" {
        operation = operation.response("503", response(&Answers::Text("text/plain")));
    }
    if route.is_open {
        return operation.securities(Some([SecurityRequirement::default()]));
    }
    let none: [&str; 0] = [];
    let refused =
        ResponseBuilder::new().description("Why it is not done").content("application/json", content("ApiError"));
    operation
        .response("default", refused.build())
        .securities(Some([SecurityRequirement::new("token", none), SecurityRequirement::new("session", none)]))
}

fn parameter(name: &str, place: ParameterIn, schema: Object, about: &str) -> Parameter {
    let required = if matches!(place, ParameterIn::Path) { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(about))
        .schema(Some(schema))
        .build()
}

fn content(schema: &str) -> Content {
    Content::new(Some(RefOr::<Schema>::Ref(Ref::from_schema_name(schema))))
}

fn response(answers: &Answers) -> Response {
    let done = ResponseBuilder::new().description("It is done");
    match answers {
        Answers::Json(schema) => done.content("application/json", content(schema)).build(),
        Answers::Text(kind) => {
            let text = ObjectBuilder::new().schema_type(Type::String).build();
            done.content(*kind, Content::new(Some(RefOr::T(Schema::Object(text))))).build()
        }
        Answers::Nothing => done.build(),
    }
}

/// The schemas of all that is asked and answered, and of what is in it.
fn schemas() -> Vec<(String, RefOr<Schema>)> {
    fn add<T: ToSchema + PartialSchema>(all: &mut Vec<(String, RefOr<Schema>)>) {
        all.push((T::name().into_owned(), T::schema()));
        T::schemas(all);
    }
    let mut all = Vec::new();
    add::<ApiError>(&mut all);
    add::<JobRequest>(&mut all);
    add::<JobRecord>(&mut all);
    add::<JobPage>(&mut all);
    add::<JobDetail>(&mut all);
    add::<EventPage>(&mut all);
    add::<Graphs>(&mut all);
    add::<FiguresNow>(&mut all);
    add::<Reports>(&mut all);
    add::<LogFiles>(&mut all);
    add::<Deleted>(&mut all);
    add::<Info>(&mut all);
    add::<Health>(&mut all);
    add::<NewToken>(&mut all);
    add::<LoginLink>(&mut all);
    add::<Shutdown>(&mut all);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_for_programs_is_in_the_document_and_every_schema_that_it_names() {
        let document = serde_json::to_value(document()).unwrap();
        for route in ROUTES.iter().filter(|route| route.path.starts_with("/api/")) {
            let path = route.path.replace("{*", "{");
            let operation = &document["paths"][&path][route.method.to_lowercase()];
            assert_eq!(operation["summary"], route.about, "{} {path}", route.method);
            assert_eq!(operation["security"].as_array().unwrap().len(), 2, "{path}");
            let named = route.path.matches('{').count();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            assert_eq!(parameters.iter().filter(|one| one["in"] == "path").count(), named, "{path}");
        }
        let schemas: BTreeSet<String> =
            document["components"]["schemas"].as_object().unwrap().keys().map(|name| name.to_owned()).collect();
        let text = document.to_string();
        let named = text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        for name in named {
            assert!(schemas.contains(&name), "there is no schema {name}");
        }
        let ids: BTreeSet<_> = text.split("\"operationId\":\"").skip(1).map(|rest| rest.split('"').next()).collect();
        assert_eq!(ids.len(), text.matches("\"operationId\"").count(), "ids of operations are unique");
    }
}
