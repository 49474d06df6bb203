//! The README's program: answers a question from the documents in the folder `docs`.

use sage::{BoxError, Environment};
use sage_services::store::Embedded;
use sage_services::{DocumentIndex, documents};

fn main() -> Result<(), BoxError> {
    let env = Environment::local("rag");
    let made = DocumentIndex::constructor(|| Embedded::at("docs.sage"))?;
    let index = env.register_async_service("index", made).build();
    let asked = index.clone();
    env.from_iter(documents("docs".as_ref(), &["md".into()]))
        .try_map(move |path| index.try_call_blocking(async |index| index.add(path?).await))
        .count()
        .try_map(move |_| asked.try_call_blocking(async |index| index.answer("In which order do services stop?").await))
        .sink(|answer| answer.iter().for_each(|answer| println!("{answer}")));
    env.run()?;
    Ok(())
}
