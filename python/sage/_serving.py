"""A pipeline as a service, with SAGE's names: a service passes calls on to a pipeline by a ``PipelineBridge``.

Invariants: every request that was submitted is answered once, or its caller gets an error as soon as the last reference
to its record is gone; what waits in a bridge when its pipeline ends is dropped then. The source is woken by requests.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

from ._arguments import seconds
from ._functions import SinkFunction, SourceFunction
from ._made import Made
from ._packet import StopSignal
from ._sage import Cancelled, Nothing, Spec, SubmitError, Wait, is_cancelled_here
from ._services import BaseService, ServiceFactory

#: Where a record of a pipeline carries its caller.
_CALLER = "_response_queue"


class _Dropped:
    """What a caller gets instead of an answer."""


class Response(Queue[Any]):
    """Where the answer to a request comes: a queue of one. ``get`` raises ``RuntimeError`` if the record is dropped."""

    def __init__(self) -> None:
        super().__init__(maxsize=1)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Waits for the answer, as ``queue.Queue.get`` does.

        >>> bridge = PipelineBridge()
        >>> response = bridge.submit({"question": "why?"})
        >>> bridge.next().response_queue.put({"answer": "because"})
        >>> response.get(timeout=1)
        {'answer': 'because'}
        """
        answer = super().get(block, timeout)
        if answer is not _Dropped:
            return answer
        if is_cancelled_here():
            raise Cancelled("the job is being cancelled")
        raise RuntimeError(
            "the pipeline dropped the record of this call without an answer: a step has filtered it or failed with it, "
            "has left its `_response_queue` out, or the pipeline has ended"
        )


class Caller:
    """The caller of a pipeline, as its record carries it: ``put`` answers it. When the last reference is gone without
    an answer, the caller gets an error at once. A second answer is ignored."""

    def __init__(self, response: Response) -> None:
        self._response: Response | None = response
        self._lock = threading.Lock()

    def put(self, answer: Any, block: bool = True, timeout: float | None = None) -> None:
        """Answers the call. Does not wait.

        >>> bridge = PipelineBridge()
        >>> response = bridge.submit("why?")
        >>> bridge.next().response_queue.put("because")
        >>> response.get(timeout=1)
        'because'
        """
        with self._lock:
            response, self._response = self._response, None
        if response is not None:
            response.put_nowait(answer)

    def put_nowait(self, answer: Any) -> None:
        """As ``put``.

        >>> bridge = PipelineBridge()
        >>> response = bridge.submit("why?")
        >>> bridge.next().response_queue.put_nowait("because")
        >>> response.get(timeout=1)
        'because'
        """
        self.put(answer)

    def __del__(self) -> None:
        # No lock: nobody else has it. It may be that the constructor did not run.
        response = getattr(self, "_response", None)
        if response is not None:
            response.put_nowait(_Dropped)

    def __copy__(self) -> Caller:
        return self

    def __deepcopy__(self, _memo: Any) -> Caller:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            "the caller of a pipeline stays in its process; leave out `workers` behind a PipelineServiceSource"
        )


class Called(dict[str, Any]):
    """The record of a call. Some programs take it as the ``PipelineRequest`` that it is of: it has its attributes."""

    __slots__ = ("payload",)

    def __init__(self, request: Any) -> None:
        self.payload = request.payload
        super().__init__(self.payload if isinstance(self.payload, Mapping) else {"data": self.payload})
        self[_CALLER] = request.response_queue

    @property
    def response_queue(self) -> Any:
        """Where to put the answer."""
        return self[_CALLER]


@dataclass
class PipelineRequest:
    """A call of a pipeline: its ``payload``, and the ``response_queue`` in which to ``put`` the answer."""

    payload: Any
    response_queue: Any


class PipelineBridge:
    """Takes calls to a pipeline: a service submits them, and a ``PipelineServiceSource`` makes records of them.

    The pipeline is in the same environment as those that call the service. It ends after all tasks that could call it:
    the engine closes the bridge then. A bridge that is closed stays closed.

    >>> env = LocalEnvironment("questions")
    >>> bridge = PipelineBridge()
    >>> service = env.register_service("answers", PipelineService, bridge)
    >>> requests = env.from_source(PipelineServiceSource, bridge)
    >>> end = requests.map(lambda data: {**data, "answer": data["question"].upper()}).sink(PipelineServiceSink)
    >>> class Ask(MapFunction):
    ...     def execute(self, question):
    ...         return self.call_service("answers", {"question": question})["answer"]
    >>> answers = env.from_batch(["why?", "how?"]).map(Ask).collect()
    >>> job = env.submit(autostop=True)
    >>> answers
    ['WHY?', 'HOW?']
    """

    def __init__(self) -> None:
        self._requests: deque[PipelineRequest] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        #: Those of sources that have nothing to do.
        self._waits: list[Wait] = []

    def submit(self, payload: Any) -> Queue[Any]:
        """Puts a request into the bridge; returns the queue in which its answer comes. Raises ``RuntimeError`` when the
        bridge is closed.

        >>> PipelineBridge().submit({"question": "why?"}).empty()
        True
        """
        response = Response()
        self._change(lambda: self._requests.append(PipelineRequest(payload, Caller(response))))
        return response

    def _change(self, act: Callable[[], None]) -> None:
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the bridge is closed: its pipeline takes no more requests")
            act()
            waits, self._waits = self._waits, []
            self._changed.notify()
        for wait in waits:
            wait.end()

    def next(self, timeout: float | None = 0.1) -> PipelineRequest | StopSignal | None:
        """The next request; ``None`` if none came within ``timeout`` seconds; a ``StopSignal`` when the bridge is
        closed and empty.

        >>> bridge = PipelineBridge()
        >>> bridge.next(timeout=0) is None
        True
        >>> bridge.close()
        >>> print(bridge.next())
        StopSignal(pipeline bridge closed)
        """
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._is_closed, timeout)
            if self._requests:
                return self._requests.popleft()
            return StopSignal("pipeline bridge closed") if self._is_closed else None

    def close(self) -> None:
        """Lets no more requests in; those that wait are still taken. A second call does nothing.

        >>> bridge = PipelineBridge()
        >>> bridge.close()
        >>> bridge.is_closed
        True
        """
        with self._changed:
            self._is_closed = True
            waits, self._waits = self._waits, []
            self._changed.notify_all()
        for wait in waits:
            wait.end()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    def _drop(self) -> None:
        """Closes it, and drops what waits: nobody takes it any more."""
        self.close()
        with self._changed:
            # Dropped outside of the lock: it wakes callers.
            dropped, self._requests = self._requests, deque()
        dropped.clear()

    def _leave(self, response: Queue[Any]) -> None:
        """The caller does not wait any more: a request that was not taken is forgotten."""
        with self._changed:
            kept = [one for one in self._requests if getattr(one.response_queue, "_response", None) is not response]
            left, self._requests = self._requests, deque(kept)
        left.clear()

    def _awaited(self) -> Wait:
        """Ends when there is something to do for a source."""
        wait = Wait()
        with self._changed:
            if not self._requests and not self._is_closed:
                self._waits.append(wait)
                return wait
        wait.end()
        return wait

    def __reduce__(self) -> Any:
        # A job that travels, as to a job manager, begins with an empty one.
        return type(self), ()


class PipelineServiceSource(SourceFunction):
    """Makes records of the requests in a bridge. A ``dict`` comes with the caller added as ``_response_queue``,
    anything else as ``{"data": …, "_response_queue": …}``. A step that makes a new ``dict`` has to carry that along.
    The record has ``payload`` and ``response_queue`` as attributes too, as a ``PipelineRequest``.

    ``poll_interval`` is how long ``execute`` waits for a request where no job asks it, in seconds; in a job, the source
    is woken by requests.

    See ``PipelineBridge``.
    """

    #: The engine ends it after all that could call its pipeline.
    _serves = True

    def __init__(self, bridge: Any, poll_interval: float = 0.1) -> None:
        self.bridge = bridge
        self.poll_interval = seconds("`poll_interval`", poll_interval)

    def execute(self, data: Any = None) -> Any:
        """The next record; ``None`` if there is none just now; a ``StopSignal`` at the end.

        >>> bridge = PipelineBridge()
        >>> response = bridge.submit({"question": "why?"})
        >>> sorted(PipelineServiceSource(bridge).execute())
        ['_response_queue', 'question']
        """
        waits_itself = self.ctx is None or not isinstance(self.bridge, PipelineBridge)
        request = self.bridge.next(timeout=self.poll_interval if waits_itself else 0)
        if request is None or isinstance(request, StopSignal):
            return request
        return Called(request)

    def _awaited(self) -> Any:
        """What the engine waits for when there is nothing just now."""
        return self.bridge._awaited() if isinstance(self.bridge, PipelineBridge) else Nothing

    def _end(self) -> None:
        """Nobody is left who could call."""
        self.bridge.close()

    def close(self) -> None:
        """Closes the bridge. Callers whose requests still wait there, as after a cancel, get an error."""
        if isinstance(self.bridge, PipelineBridge):
            self.bridge._drop()


class PipelineServiceSink(SinkFunction):
    """Answers the caller of each record with the record, without its ``_response_queue``; or, of a mapping that has it
    as ``response_queue``, with the ``payload``.

    >>> bridge = PipelineBridge()
    >>> response = bridge.submit({"question": "why?"})
    >>> PipelineServiceSink().execute(PipelineServiceSource(bridge).execute())
    >>> response.get(timeout=1)
    {'question': 'why?'}
    """

    def execute(self, data: Any) -> None:
        """Answers one caller. Raises ``ValueError`` for a record without ``_response_queue``.

        >>> PipelineServiceSink().execute({"answer": 42})
        Traceback (most recent call last):
        ...
        ValueError: the record has no `_response_queue`: a step has made a new dict and left it out
        """
        if isinstance(data, Mapping) and _CALLER in data:
            data[_CALLER].put({key: value for key, value in data.items() if key != _CALLER})
        elif isinstance(data, Mapping) and {"payload", "response_queue"} <= data.keys():
            data["response_queue"].put(data["payload"])
        else:
            raise ValueError("the record has no `_response_queue`: a step has made a new dict and left it out")


class PipelineService(BaseService):
    """A service whose calls a pipeline answers: see ``PipelineBridge``.

    ``request_timeout`` is how many seconds a call waits for its answer. Default: 30; 5 where the environment variable
    ``SAGE_TEST_MODE`` is ``true`` or ``SAGE_EXAMPLES_MODE`` is ``test``.
    """

    def __init__(self, bridge: Any, request_timeout: float | None = None) -> None:
        self.bridge = bridge
        if request_timeout is None:
            of_test = os.environ.get("SAGE_TEST_MODE") == "true" or os.environ.get("SAGE_EXAMPLES_MODE") == "test"
            request_timeout = 5.0 if of_test else 30.0
        self.request_timeout = seconds("`request_timeout`", request_timeout, more=True)

    def process(self, message: Any) -> Any:
        """Has the pipeline answer ``message``. ``{"command": "shutdown"}`` closes the bridge.

        Raises ``ValueError`` for ``None``, ``TimeoutError`` when no answer came in time, and ``RuntimeError`` when the
        bridge is closed or the pipeline has dropped the record.

        >>> PipelineService(PipelineBridge()).process({"command": "shutdown"})
        {'status': 'shutdown_ack'}
        """
        if message is None:
            raise ValueError("the pipeline needs a message, not None")
        if isinstance(message, Mapping) and message.get("command") == "shutdown":
            self.bridge.close()
            return {"status": "shutdown_ack"}
        response = self.bridge.submit(message)
        try:
            return response.get(timeout=self.request_timeout)
        except Empty:
            if isinstance(self.bridge, PipelineBridge):
                self.bridge._leave(response)
            raise TimeoutError(f"the pipeline did not answer within {self.request_timeout:g} s") from None

    def stop(self) -> None:
        """Closes the bridge.

        >>> service = PipelineService(PipelineBridge())
        >>> service.stop()
        >>> service.bridge.is_closed
        True
        """
        self.bridge.close()


def served(made: Made, services: Mapping[str, ServiceFactory], isolated: Container[str]) -> Spec:
    """What the engine is asked for a source that serves: with the name of the service that has its bridge, if any."""
    _, args, kwargs = made
    bridges = {id(given) for given in (*args, *kwargs.values()) if isinstance(given, PipelineBridge)}
    for name, factory in services.items():
        given = (*factory.service_args, *factory.service_kwargs.values())
        if any(id(one) in bridges for one in given):
            if name in isolated:
                raise SubmitError(
                    f"service `{name}` has a PipelineBridge, which stays in the job's process; leave out `isolated`"
                )
            return Spec.Source(serves=True, service=name)
    return Spec.Source(serves=True)
