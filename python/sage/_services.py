"""Services: objects that live as long as a job, are called by name, and are stopped and cleaned at its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from ._arguments import check_call, like, parameters, shown, text
from ._awaiting import check_hook
from ._batched import batch_methods
from ._context import Context, InJob
from ._made import constructed
from ._job_loop import JobLoop

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._policies import Retry


class BaseService(InJob):
    """A service. The order of its life: ``__init__``, ``setup``, ``start``, calls, ``stop``, ``cleanup``.

    Every hook runs once; ``cleanup`` runs whatever happened before. Hooks may be ``async``: they run on the event loop
    of the job's async functions. A subclass need not call ``super().__init__()``.

    >>> class Counter(Service):
    ...     def setup(self):
    ...         self.calls = 0
    ...     def next(self):
    ...         self.calls += 1
    ...         return self.calls
    ...     def cleanup(self):
    ...         print("calls:", self.calls)
    >>> env = LocalEnvironment("numbered")
    >>> counter = env.service("counter", Counter)
    >>> numbered = env.from_batch(["a", "b"]).map(lambda line: (counter.next(), line)).collect()
    >>> job = env.submit(autostop=True)
    calls: 2
    >>> numbered
    [(1, 'a'), (2, 'b')]
    """

    _context_kind = "Service"

    def with_policy(
        self,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        retry: int | Retry | None = None,
        sample: int | None = None,
    ) -> Self:
        """Of a handle: a handle of the same service, whose calls have other settings of its policy. See
        ``ServiceHandle.with_policy``. The service itself has none.

        >>> class Prices(Service):
        ...     def of(self, fruit):
        ...         return {"apples": 30}[fruit]
        >>> env = LocalEnvironment("prices")
        >>> prices = env.service("prices", Prices, timeout=20)
        >>> found = env.from_batch(["apples"]).map(prices.with_policy(timeout=1).of).collect()
        >>> job = env.submit(autostop=True)
        >>> found
        [30]
        """
        raise RuntimeError("`with_policy` is for handles of services, such as `env.service` returns, not for a service")

    def setup(self) -> Awaitable[None] | None:
        """Acquires the resources of the service."""

    def start(self) -> Awaitable[None] | None:
        """Starts work that runs beside the calls."""

    def stop(self) -> Awaitable[None] | None:
        """Makes that work, and running calls, end soon."""

    def cleanup(self) -> Awaitable[None] | None:
        """Releases all resources."""


#: The name for new code.
Service = BaseService


#: A call that names no method means the first of these that a service has.
USUAL = ("process", "execute", "call")


class ServiceFactory:
    """Makes a service: of a class with the arguments of its constructor, or by a function.

    ``register_service`` returns one, and ``register_service_factory`` takes one.
    """

    def __init__(
        self,
        service_name: str,
        service_class: Callable[..., Any],
        service_args: tuple[Any, ...] = (),
        service_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.service_name = text("the name of a service", service_name)
        self.service_class = service_class
        self.service_args = tuple(service_args)
        self.service_kwargs = dict(service_kwargs or {})
        check_call(service_class, self.service_args, self.service_kwargs)

    def create_service(self, ctx: Context | None = None) -> Any:
        """Makes one, which has the context ``ctx``."""
        made, args, kwargs = self.service_class, self.service_args, self.service_kwargs
        if not isinstance(made, type):
            return made(*args, **kwargs)
        return constructed(made, args, kwargs, ctx)

    def __repr__(self) -> str:
        return f"ServiceFactory({self.service_name!r}, {shown(getattr(self.service_class, '__name__', ''))})"


#: The methods of a service that the engine calls itself.
HOOKS = ("setup", "start", "start_running", "stop", "terminate", "cleanup", "close")


class Hooks:
    """The hooks of a service, as the engine calls them, with the seconds that are left for each. Classes that do not
    extend ``BaseService`` work too."""

    def __init__(self, made: Callable[[], Any], loop: JobLoop, kept: Iterable[tuple[str, str]] | None = ()) -> None:
        """``kept`` are the methods for which its policy has settings; ``None`` if it has no policy."""
        #: The event loop of its job.
        self.loop = loop
        self._kept = kept or ()
        # What it opens on the loop is closed there.
        loop.hold()
        try:
            self.instance = made()
            if kept is None and (batched := batch_methods(type(self.instance))):
                kind = type(self.instance).__name__
                raise TypeError(
                    f"`{batched[0]}` of `{kind}` answers requests together, and the job does not know that before the "
                    "service is made: register the class itself, or give the service a `deadline`"
                )
        except BaseException:
            loop.release()
            raise

    def _call(self, *names: str) -> None:
        """Calls the first of these methods that there is."""
        for name in names:
            hook = getattr(self.instance, name, None)
            if callable(hook):
                returned = self.loop.awaited(hook())
                check_hook(f"{type(self.instance).__name__}.{name}", returned)
                return

    def setup(self, _left: float = 0.0) -> None:
        """Runs ``setup``, then ``start`` or ``start_running``."""
        if self._kept:
            is_there = [name for _, name in self._kept if callable(getattr(self.instance, name, None))]
            check_kept(self._kept, type(self.instance).__name__, [*methods_of(self.instance), *is_there])
        self._call("setup")
        self._call("start", "start_running")

    def stop(self, _left: float = 0.0) -> None:
        """Runs ``stop`` or ``terminate``."""
        self._call("stop", "terminate")

    def cleanup(self, _left: float = 0.0) -> None:
        """Runs ``cleanup`` or ``close``."""
        try:
            self._call("cleanup", "close")
        finally:
            self.loop.release()

    def explain(self, method: str, error: AttributeError) -> AttributeError:
        """The exception to raise when a call raised this one. If the method does not exist, it names those that do."""
        if hasattr(self.instance, method):
            return error
        return no_method(type(self.instance).__name__, method, methods_of(self.instance))


def check_kept(kept: Iterable[tuple[str, str]], kind: str, there: list[str]) -> None:
    """Raises where a setting of the policy, such as ``keep``, is for a method that a service does not have."""
    for setting, method in kept:
        if method not in there:
            raise AttributeError(f"`{setting}`: {no_method(kind, method, there)}")


def takes_key(method: Any) -> bool:
    """Whether a method has a parameter for the idempotency key of a call."""
    told = getattr(method, "takes_key", None)  # of one of a service in another process
    return told if isinstance(told, bool) else "idempotency_key" in parameters(method)


def methods_of(instance: Any) -> list[str]:
    """The names of the public methods of a service."""
    public = [name for name in dir(instance) if not name.startswith("_")]
    return [name for name in public if callable(getattr(instance, name, None))]


def no_method(kind: str, method: str, there: list[str]) -> AttributeError:
    """What is raised for a method that a class of services does not have."""
    return AttributeError(f"`{kind}` has no method `{method}`; {like(method, there, 'it has none')}")
