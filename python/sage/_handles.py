"""Handles of services: objects that look like the service's class, and call the service of the running job."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NoReturn

from ._pickling import refuse
from ._sage import Attributes, Binding

if TYPE_CHECKING:
    from ._call_policies import Changes
    from ._policies import Retry


class ServiceHandle(Attributes):
    """A handle of a service: its methods are the service's, called through the engine.

    ``LocalEnvironment.service`` returns one. A method is made when it is first asked for, and kept in the
    handle's ``__dict__``: from then on ``db.search`` is a plain attribute. It calls the service of the job that
    runs at the moment.

    >>> env = LocalEnvironment("prices")
    >>> prices = env.service("prices", lambda: {"apples": 30})
    >>> found = env.from_batch(["apples"]).map(prices.get).collect()
    >>> job = env.submit(autostop=True)
    >>> found
    [30]
    """

    def __init__(self, binding: Binding, cls: Any = None, changes: Changes | None = None) -> None:
        self.__dict__["_sage"] = binding, cls, changes

    def with_policy(
        self,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        retry: int | Retry | None = None,
        sample: int | None = None,
    ) -> ServiceHandle:
        """A handle of the same service, whose calls have other settings of its policy: see
        ``LocalEnvironment.service`` for what they are. What is left out stays. What all callers share, such as batches,
        stays shared. ``sample`` (a whole number from 0 on; default: 0) tells apart equal calls that are to have an
        answer each, where answers are kept. Calls raise ``ServiceError`` if the service has no policy.

        >>> env = LocalEnvironment("prices")
        >>> prices = env.service("prices", lambda: {"apples": 30}, timeout=20)
        >>> quick = prices.with_policy(timeout=1)
        >>> found = env.from_batch(["apples"]).map(quick.get).collect()
        >>> job = env.submit(autostop=True)
        >>> found
        [30]
        """
        from ._call_policies import Changes, changes  # few programs have policies

        binding, cls, before = self.__dict__["_sage"]
        new = changes(timeout, deadline, retry, sample)._asdict()
        new = {name: value for name, value in new.items() if value is not None}
        return ServiceHandle(binding, cls, (before or Changes())._replace(**new))

    def _missing(self, method: str) -> Any:
        binding, cls, changes = self.__dict__["_sage"]
        if method.startswith("__"):
            raise AttributeError(f"a handle of a service calls its methods, but not `{method}`")
        is_async = False
        if isinstance(cls, type):
            is_async = inspect.iscoroutinefunction(getattr(cls, method, None))
            there = inspect.getattr_static(cls, method, None)
            if there is not None and not callable(getattr(cls, method, None)):
                raise AttributeError(f"`{method}` of service `{binding.name}` is not a method; add one that returns it")
        called = self.__dict__[method] = binding.method(method, changes, is_async)
        return called

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"`{name}` cannot be set through a handle of service `{self.__dict__['_sage'][0].name}`")

    def __copy__(self) -> ServiceHandle:
        return self

    def __deepcopy__(self, _copied: Any) -> ServiceHandle:
        return self

    def __reduce__(self) -> NoReturn:
        refuse(repr(self), "use it in functions of its environment's jobs, or register a service in the other process")

    def __repr__(self) -> str:
        return f"<handle of service {self.__dict__['_sage'][0].name}>"


def name_of_service(service: Any, known: dict[str, Binding], what: str = "after") -> str:
    """The name of a service that is given by its handle or its name. A handle must be one of these services."""
    if isinstance(service, ServiceHandle):
        binding: Binding = service.__dict__["_sage"][0]
        if known.get(binding.name) is not binding:
            raise ValueError(f"`{binding.name}` is a service of another environment")
        return binding.name
    if isinstance(service, str):
        return service
    raise TypeError(f"`{what}` takes handles of services, or their names, not {service!r}")
