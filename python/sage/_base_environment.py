"""What all environments have: services, a configuration, and how they show what is declared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from . import _sage
from ._arguments import check_call, numbered, parameters, text, truth, warn, whole
from ._batched import batch_methods
from ._config import check_config, check_workers, faults_of, timeouts_of, worker_loss_of
from ._context import JobContext
from ._handles import ServiceHandle, name_of_service
from ._isolation import Isolation, isolation_of
from ._keywords import spelt
from ._pickling import refuse
from ._pipeline import FORGOTTEN, Pipeline, declared
from ._plan import Step, plan, without_sink
from ._scheduler import scheduler_of
from ._services import ServiceFactory
from ._given import name_of
from ._transformation import Transformation

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._call_policies import Breaker, CallPolicy, Concurrency, Rate
    from ._keep import Journal, Keep
    from ._policies import Retry
    from ._spends import Spend, Usage
    from ._verdicts import Passing, Throttled

T = TypeVar("T")


@spelt
class BaseEnvironment(Pipeline):
    """Declares pipelines and the services they call. Where they run, its subclasses say."""

    #: Where its jobs run.
    platform = ""

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any] | None = None,
        scheduler: Any = None,
        enable_monitoring: bool = False,
        *,
        workers: str | None = None,
    ) -> None:
        super().__init__(name)
        #: Where functions run whose steps do not say it.
        self.workers = check_workers(workers)
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(f"`config` is a mapping, not {config!r}; `load_config` reads a file")
        self.config = dict(config or {})
        check_config(self.config)
        self._after: dict[str, list[str]] = {}
        self._bindings: dict[str, _sage.Binding] = {}
        #: The services that have processes of their own.
        self._isolated: dict[str, Isolation] = {}
        #: Those that have policies.
        self._policies: dict[str, CallPolicy] = {}
        #: Is asked about each task before it starts: see ``BaseScheduler``.
        self.scheduler = scheduler_of(scheduler)
        self.enable_monitoring = truth("`enable_monitoring`", enable_monitoring)

    def close(self) -> Any:
        """Ends the job, and lets go of the pipeline."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """Lets go of the pipeline."""
        if self in declared:
            declared.discard(self)
            warn(FORGOTTEN.format(f"`{self.name}`"))
        for step in self._steps:
            step.is_closed = True
        self._steps, self._names = [], {}
        self.env_uuid = None

    def _warn_of_open_ends(self) -> list[Transformation]:
        """Warns of the steps that nothing follows, and gives them."""
        open_ends = without_sink(self._steps)
        if open_ends:
            names = ", ".join(f"`{step.name}`" for step in open_ends)
            warn(f"{names}: no sink follows, so the records are counted and dropped; end with `sink` or `collect`")
        return open_ends

    @property
    def uuid(self) -> str | None:
        """As ``env_uuid``.

        >>> LocalEnvironment("new").uuid is None
        True
        """
        return self.env_uuid

    @property
    def service_factories(self) -> dict[str, ServiceFactory]:
        """What makes each registered service, by its name.

        >>> env = LocalEnvironment("prices")
        >>> prices = env.service("prices", dict)
        >>> list(env.service_factories)
        ['prices']
        """
        return dict(self._services)

    @cached_property
    def logger(self) -> logging.Logger:
        """The logger of this environment, ``sage.`` and its name.

        >>> LocalEnvironment("orders").logger.name
        'sage.orders'
        """
        return logging.getLogger(f"sage.{self.name}")

    def __repr__(self) -> str:
        steps = numbered(sum(step.owner is None for step in self._steps), "step")
        return f"<{type(self).__name__} {self.name}, {steps}{self._doing()}>"

    def _doing(self) -> str:
        """What its job does, for its ``repr``."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is not None:
            declared.discard(self)
        self.close()

    def register_service(
        self, service_name: str, service_class: Any, *args: Any, **kwargs: Any
    ) -> ServiceFactory:
        """Registers a service, given as a class with the arguments of its constructor. Returns what makes it.

        ``remote=True`` gives it a process of its own, as ``isolated`` of ``service`` does; unless the constructor has
        an argument of that name.

        >>> class Prices(BaseService):
        ...     def of(self, fruit):
        ...         return {"apples": 30}[fruit]
        >>> class Bill(MapFunction):
        ...     def execute(self, fruit):
        ...         return self.call_service("prices", fruit, method="of")
        >>> env = LocalEnvironment("orders")
        >>> factory = env.register_service("prices", Prices)
        >>> bills = env.from_batch(["apples"]).map(Bill).collect()
        >>> job = env.submit(autostop=True)
        >>> bills
        [30]
        """
        if not callable(service_class):
            raise TypeError(f"`register_service` needs a class, not {service_class!r}")
        is_isolated = False
        if "remote" in kwargs and "remote" not in parameters(service_class):
            is_isolated = truth("`remote`", kwargs.pop("remote"))
        factory = ServiceFactory(service_name, service_class, args, kwargs)
        self._register(service_name, factory, isolation=Isolation() if is_isolated else None)
        return factory

    def register_service_factory(self, service_name: str, service_factory: Any) -> Any:
        """Registers a service that a function makes, or what ``register_service`` returned, or another object with
        ``create_service(context)``. Returns it.

        >>> env = LocalEnvironment("lookups")
        >>> factory = env.register_service_factory("table", lambda: {"apples": 30})
        >>> class Price(MapFunction):
        ...     def execute(self, fruit):
        ...         return self.call_service("table", fruit, method="get")
        >>> prices = env.from_batch(["apples"]).map(Price).collect()
        >>> job = env.submit(autostop=True)
        >>> prices
        [30]
        """
        made = service_factory
        if isinstance(made, type) or not callable(getattr(made, "create_service", None)):
            if not callable(made):
                needs = "`register_service_factory` needs a function, or an object with `create_service`"
                raise TypeError(f"{needs}, not {made!r}")
            made = ServiceFactory(service_name, made)
        self._register(service_name, made)
        return service_factory

    def service(
        self,
        name: str,
        service: Callable[..., T],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        after: Iterable[Any] = (),
        timeout: float | None = None,
        deadline: float | None = None,
        retry: int | Retry | None = None,
        fallback: Any = (),
        rate: int | Rate | Sequence[int | Rate] | None = None,
        cost: Callable[..., int] | Mapping[str, Callable[..., int]] | None = None,
        concurrency: int | Concurrency | None = None,
        breaker: int | Breaker | None = None,
        retry_budget: float | None = None,
        pause_on_outage: float | None = None,
        judge: Callable[[Exception], str | Throttled | Passing | None] | None = None,
        spend: float | Spend | Sequence[float | Spend] | None = None,
        price: Callable[..., float] | Mapping[str, Callable[..., float]] | None = None,
        usage: Callable[[Any], Usage | None] | Mapping[str, Callable[[Any], Usage | None]] | None = None,
        version: str | None = None,
        journal: str | PathLike[str] | Journal | None = None,
        keep: Mapping[str, Keep] | None = None,
        isolated: bool = False,
        restarts: int = 0,
        ray: Mapping[str, Any] | None = None,
    ) -> T:
        """Registers a service, given as a class or as a function that makes it. Returns its handle.

        With ``db = env.service("db", VectorDB)``, a type checker sees ``db`` as a ``VectorDB`` and checks
        ``db.search(q, k=4)``. At run time it is a ``ServiceHandle``: its methods call the service of the job that is
        running. Functions and other services may hold the handle, or one of its methods. It has no attributes but
        methods. The methods raise the service's exceptions, and ``ServiceError`` while no job runs or once the service
        has stopped. An ``async`` method returns its coroutine; for the engine, the call ends when the method has
        returned it.

        ``after`` names the services that this one uses, as handles or names: it starts after them, and is cleaned
        before them. The engine also notices calls to services that are not declared here.

        The following settings are the service's policy: what is done for each call, whoever makes it, also by its name
        or in a worker process. Without any, calls go straight to the service. Times are in seconds; each setting is off
        by default. ``with_policy`` of the handle gives a handle whose calls have others.

        ``timeout``: how long one attempt may take. Then it raises ``TimeoutError``; an ``async def`` is cancelled,
        while any other method goes on, on its thread. ``deadline``: how long a call may take with all its waits and
        attempts; then it raises ``TimeoutError``. Calls that the service makes to answer it have that deadline too.
        ``retry``: a number of attempts or a ``Retry``. The exception of the last attempt is raised. ``retry_budget``:
        how many retries there may be for each call, of all callers together, such as 0.2. ``breaker``: after how many
        failures in a row calls are refused for a while, or a ``Breaker``. ``fallback``:
        another service, or several: the same method of it is called where this service fails, and starts before it.
        ``rate``: how many calls a second the service gets, or a ``Rate``, or several; calls beyond it wait. ``cost``: a
        function that is given the arguments of a call, and says what the call costs, a whole number from 0 on.
        ``concurrency``: how many calls may be under way at once, or a ``Concurrency``; others wait for their turn.
        ``pause_on_outage``: while the service is not there, the job pauses, for so many seconds at most; calls are held
        and made again. ``judge``: a function that is given an exception of the service, and says what it means:
        ``"bad"`` (the request is at fault: no other attempt, no fallback), ``"passing"`` or a ``Passing`` with seconds,
        ``"throttled"`` or a ``Throttled`` with seconds (the service asks for fewer calls), ``"denied"`` (it takes
        nothing from this caller: no other attempt, but a fallback), ``"outage"`` (it is not there), or ``None`` for
        what is usual: a ``ConnectionError`` is an outage, the HTTP status 429 is throttled, as is one that has
        ``retry_after`` and no status, 401, 402, 403 and 407 are denied, other statuses from 400 to 499 are bad unless
        they say when to come again, and all else is passing.

        ``spend``: how much may be spent on the service in a day, or a ``Spend``, or several. ``price``: a function that
        is given the arguments of a call, and says what will be spent on it, a number from 0 on; so much is reserved
        before each attempt. ``usage``: a function that is given an answer, and says by a ``Usage`` what it did cost, or
        ``None`` for what was reserved. If it raises, that counts, too. ``cost``, ``price`` and ``usage`` may also be
        functions for some methods each, by their names. ``keep``: how the answers of methods are kept, a
        ``Keep`` for each. ``version``: a text that changes with the answers of the service: with its code, its model,
        its prompts. ``journal``: the folder of the run's journal, or a ``Journal``. A method with a parameter
        ``idempotency_key`` gets there a text that is the same for every attempt of a call that is in the journal.

        A call that the policy does not let through raises ``ServiceRefused``. ``batched`` is for methods that answer
        requests together.

        ``isolated=True`` gives the service a process of its own: what it does takes no time of this process's
        interpreter, and its end is not the program's. The service, the arguments of its calls and their results are
        pickled. Calls run there at the same time, as here. A hook or call that never ends is ended with the process, at
        its deadline. If the process ends by itself, calls raise ``ServiceError``, and the report says that the service
        is lost and was not cleaned. With ``restarts``, another process takes its place, so many times at most: calls
        inside fail all the same, later ones wait until the new service is set up. None begins once the job stops.
        With ``restarts`` and a policy, a call past its ``timeout`` is killed with the process, and the other calls
        inside are made again in the next one, three times at most, with attempts and deadline anew. So are those inside
        a process that ends by itself.
        With ``workers="ray"`` the process is an actor of the cluster, and ``ray`` says what that takes, as it does for
        a step: see ``DataStream``.

        >>> class Prices(Service):
        ...     def setup(self):
        ...         self.cents = {"apples": 30}
        ...     def of(self, fruit):
        ...         return self.cents[fruit]
        >>> env = LocalEnvironment("orders")
        >>> prices = env.service("prices", Prices)
        >>> bills = env.from_batch(["apples"]).map(prices.of).collect()
        >>> job = env.submit(autostop=True)
        >>> bills
        [30]
        """
        if not callable(service):
            raise TypeError(f"`service` needs a class or a function that makes the service, not {service!r}")
        if isinstance(args, (str, bytes)) or not isinstance(args, Iterable):
            raise TypeError(f"`args` is a tuple of arguments for `{name_of(service)}`, not {args!r}")
        factory = ServiceFactory(name, service, tuple(args), dict(kwargs or {}))
        if isinstance(after, (str, ServiceHandle)):
            after = (after,)
        names = [name_of_service(other, self._bindings) for other in after]
        policy: CallPolicy | None = None
        settings = dict(timeout=timeout, deadline=deadline, retry=retry, fallback=fallback, rate=rate, cost=cost)
        settings |= dict(concurrency=concurrency, breaker=breaker, retry_budget=retry_budget)
        settings |= dict(pause_on_outage=pause_on_outage, judge=judge, spend=spend, price=price, usage=usage)
        settings |= dict(version=version, journal=journal, keep=keep)
        if any(setting not in (None, ()) for setting in settings.values()):
            from ._call_policies import call_policy  # few programs have one

            policy = call_policy(partial(name_of_service, known=self._bindings, what="fallback"), **settings)
            names += [other for other in policy.fallback if other not in names]
        isolation = isolation_of(name, isolated, restarts, ray)
        self._register(name, factory, names, isolation, policy)
        return cast(T, ServiceHandle(self._bindings[name], service))

    def _register(
        self,
        name: str,
        factory: Any,
        after: list[str] | None = None,
        isolation: Isolation | None = None,
        policy: CallPolicy | None = None,
    ) -> None:
        text("the name of a service", name)
        if name in self._services:
            raise ValueError(f"there is a service `{name}` already; choose another name")
        self._services[name] = factory
        self._after[name] = after or []
        self._bindings[name] = _sage.Binding(name)
        if isolation is not None:
            self._isolated[name] = isolation
        if policy is None and batch_methods(getattr(factory, "service_class", None)):
            from ._call_policies import CallPolicy

            policy = CallPolicy()
        if policy is not None:
            self._policies[name] = policy

    def explain(self) -> str:
        """Describes the declared pipeline: each step with the steps whose records it takes, and which steps run as
        one.

        >>> env = LocalEnvironment("squares")
        >>> squares = env.from_batch([1, 2]).map(lambda n: n * n, name="square").collect()
        >>> print(env.explain())  # doctest: +ELLIPSIS
        environment `squares`
          batch: ...
          square: ...
        """
        from ._html import described

        declared.discard(self)
        lines = [f"environment `{self.name}`"]
        for step in [step for step in self._steps if step.owner is None]:
            inputs = ", ".join(before.name for before in step.before)
            lines.append(f"  {step.name}: {described(step)}" + (f" ← {inputs}" if inputs else ""))
        where = dict.fromkeys(self._isolated, f" in {'an actor' if self.workers == 'ray' else 'a process'} of its own")
        lines += [f"  service {name}{where.get(name, '')}" for name in self._services]
        try:
            steps = plan(self._steps, self._context())
        except _sage.SubmitError as error:
            return "\n".join([*lines, f"cannot run yet: {error}"])
        rows = [step for number, step in enumerate(steps) if step.told.row == number]
        return "\n".join([*lines, "runs as", *map(_run_as, rows)])

    def __reduce__(self) -> NoReturn:
        refuse(f"environment `{self.name}`", "make one where it is to be used")

    def _repr_html_(self) -> str:
        from ._html import graph

        declared.discard(self)
        return graph(self._steps, self._services)

    def set_console_log_level(self, level: str) -> None:
        """Shows the messages of this environment, its functions and its services from a level on: ``"DEBUG"``,
        ``"INFO"``, ``"WARNING"``, … They go where the program has set up ``logging`` to write them; else to stderr.

        >>> env = LocalEnvironment("quiet")
        >>> env.set_console_log_level("ERROR")
        """
        from ._logging import show_on_console  # only where it is asked for

        names = logging.getLevelNamesMapping() if hasattr(logging, "getLevelNamesMapping") else logging._nameToLevel
        if not isinstance(level, str) or level.upper() not in names:
            raise ValueError(f"a level is one of {', '.join(names)}, not {level!r}")
        self.logger.setLevel(level.upper())
        show_on_console(self.logger)

    def _context(self) -> JobContext:
        timeouts, faults = timeouts_of(self.config), faults_of(self.config)
        loss = worker_loss_of(self.config)
        return JobContext(self.name, tuple(self._services), timeouts, faults, self.workers, loss)


def _run_as(step: Step) -> str:
    """A line of ``explain``."""
    times = f" ×{step.parallelism}" if step.parallelism > 1 else ""
    where = getattr(step.make, "where", "")
    return f"  [{step.name}]{times}" + (f" in {where}" if where else "")
