"""What the engine has in place of a service in a process of its own: see ``_isolated.py``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ._batched import Together
from ._services import USUAL, check_kept, no_method

if TYPE_CHECKING:
    from ._isolated import Isolated, Made


class StandIn:
    """The object of the service, as the engine has it: it calls the methods there."""

    def __init__(self, isolated: Isolated, made: Made) -> None:
        self.__dict__["_sage"] = isolated, made

    def __getattr__(self, name: str) -> Any:
        isolated, made = self.__dict__["_sage"]
        if name in USUAL and name not in made.usual:
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return isolated.call(name, args, kwargs)

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await isolated.awaited(name, args, kwargs)

        awaited.__qualname__ = name
        made_for: Any = awaited if name in made.awaited else call
        made_for.takes_key = name in made.keyed
        if name in made.batched:
            together, batching = self.__getattr__(f"{name}.together"), made.batched[name]
            made_for = Together(together, batching)
        found = self.__dict__[name] = made_for
        return found


class IsolatedHooks:
    """As ``Hooks``, of a service in a process of its own."""

    def __init__(self, isolated: Isolated, left: float, cls: Any = None, kept: Iterable[tuple[str, str]] = ()) -> None:
        self._isolated, self._kept = isolated, kept
        self._made = isolated.begin(left)
        for name, batching in self._made.batched.items():
            # What a request costs is said here, before it is taken there.
            own = getattr(getattr(cls, name, None), "batching", batching)
            self._made.batched[name] = own
        #: The event loop of its job, where async methods that answer requests together are awaited.
        self.loop = isolated._calls.loop
        self.loop.hold()
        self.instance = StandIn(self._isolated, self._made)

    def setup(self, left: float) -> None:
        """Runs ``setup``, then ``start`` or ``start_running``."""
        check_kept(self._kept, self._made.kind, self._made.methods)
        self._isolated.setup(left)

    def stop(self, left: float) -> None:
        """Runs ``stop`` or ``terminate``, and has calls end."""
        self._isolated.stop(left)

    def cleanup(self, left: float) -> None:
        """Runs ``cleanup`` or ``close``, and ends the process."""
        try:
            self._isolated.cleanup(left)
        finally:
            self.loop.release()

    def explain(self, method: str, error: AttributeError) -> AttributeError:
        """See ``Hooks.explain``; of calls, the process has done so."""
        made = self._made
        is_there = method not in USUAL or method in made.usual
        return error if is_there else no_method(made.kind, method, made.methods)
