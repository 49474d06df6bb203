"""``Memory``: conversations that are kept, recalled and erased. See ``crates/sage-python/src/memory``, which asks the
memory of ``sage_services``; here its arguments are checked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ._arguments import said, seconds, truth, whole
from ._document_index import checked_embedder
from ._handles import ServiceHandle
from ._keep import erase_answers
from ._sage import Binding, MemoryLog
from ._services import Service

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._document_index import Embeds
    from ._sage import NewTurn, Recalled, Receipt, Scope, Turn, Version, Weights, _Coordinates, _Embedder, _Value

    #: What is appended: a turn, a pair of a role and a text, or a message as chat interfaces have it.
    Said: TypeAlias = NewTurn | tuple[str, str] | Mapping[str, Any]

#: The most turns that a memory can be told to take.
_MOST_TURNS = (1 << 32) - 1

#: The most turns that a recall gives.
_MOST_RECALLED = 16_384


class Imported(NamedTuple):
    """What an import has done: how many turns were remembered, were known already and left as they are, and have
    expired.

    >>> Imported(turns=2, known=1, expired=0).turns
    2
    """

    turns: int
    known: int
    expired: int


class Memory(Service):
    """A service that remembers the turns of conversations, and recalls those that matter. No language model is asked.

    >>> with Memory() as memory:
    ...     session = Scope("acme", user="u1", session="monday")
    ...     ids = memory.append(session, [("user", "I moved to Basel in May."), ("assistant", "Do you like it?")])
    ...     [recalled] = memory.recall(Scope("acme", user="u1"), "When did I move?", k=1)
    ...     recalled.turn.text, len(memory.window(session, 20)), memory.erase(session).turns
    ('I moved to Basel in May.', 2, 2)

    In a job it is a service like others, which the job opens and closes:

    >>> env = LocalEnvironment("remembering")
    >>> memory = env.service("memory", Memory)
    >>> session = Scope("acme", session="s1")
    >>> texts = env.from_batch(["Tea is hot.", "Ice is cold."])
    >>> counts = texts.map(lambda text: (memory.append(session, [("user", text)]), memory.count(session))[1]).collect()
    >>> job = env.submit(autostop=True)
    >>> counts
    [1, 2]

    ``path`` is a file, which is made if it is not there, with the folders above it, for its owner only; without one
    the memory is gone when it is closed. A file survives a ``kill -9`` with all that was acknowledged, and with
    ``synced`` a loss of power, for some milliseconds a write. An erasure is always on the disk when it returns. One
    process at a time has a file open. All turns are in memory: 100,000 with vectors of 384 numbers take about 250 MB.

    ``embedder`` has turns compared by meaning, too: it makes their vectors when they are appended, and those of
    recalls. It is one of ``sage.services``, or any object with an ``id``, ``dimensions``, ``embed_passages`` and
    ``embed_queries``, and stays open. With ``vectors_made_by``, an embedder or a pair of its ``id`` and ``dimensions``,
    whoever appends and recalls brings vectors that it has made.

    ``max_turns`` is how many turns are taken, deleted ones included. ``ttl`` is for how long turns are remembered that
    do not say so themselves, in seconds or as a ``timedelta``; for ever unless given. ``clock`` is a function that
    gives a ``datetime`` with a time zone, for tests; where it goes back, the memory's time stands still until it is
    caught up with. It must not ask the memory.

    Threads share a memory, and its reads run at the same time. What no memory would take raises ``ValueError`` or
    ``TypeError``; ``MemoryFailed`` says that this one could not do it. What an embedder and other functions that it is
    given raise comes out as it is. Moments are a ``datetime`` with a time zone, and come back in UTC.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        embedder: Embeds | None = None,
        vectors_made_by: _Embedder | tuple[str, int] | None = None,
        synced: bool = False,
        max_turns: int = 1_000_000,
        ttl: float | timedelta | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        if embedder is not None and vectors_made_by is not None:
            raise TypeError("vectors are made by the `embedder`, or come with turns, `vectors_made_by` it: give one")
        made_by = None if vectors_made_by is None else _made_by(vectors_made_by)
        if embedder is not None:
            made_by = (checked_embedder(embedder).id, embedder.dimensions)
        if clock is not None and not callable(clock):
            raise TypeError(f"`clock` is a function that gives a datetime, not {said(clock)}")
        self._log = MemoryLog(
            path,
            made_by,
            embedder,
            truth("`synced`", synced),
            whole("`max_turns`", max_turns, 1, _MOST_TURNS),
            None if ttl is None else seconds("`ttl`", ttl, more=True, hint="; leave it out for ever"),
            clock,
        )

    def open(self) -> None:
        """Opens it, and finishes what an earlier process had begun to erase. A memory that is open stays as it is. A
        job does this itself, and ``with``.

        Raises ``MemoryLocked``, ``MemoryDamaged`` and ``OtherEmbedder``.

        >>> memory = Memory()
        >>> memory.open()
        >>> memory.close()
        """
        self._log.open()

    def close(self) -> None:
        """Closes it: its file is free. One that is not open stays as it is. A job does this itself, and ``with``.

        >>> memory = Memory()
        >>> memory.close()
        >>> memory.count(Scope("acme"))
        Traceback (most recent call last):
        sage.services.MemoryClosed: the memory is not open
        """
        self._log.close()

    def setup(self) -> None:
        """Opens it."""
        self.open()

    def cleanup(self) -> None:
        """Closes it."""
        self.close()

    def append(self, scope: Scope, turns: Iterable[Said]) -> list[str]:
        """Remembers turns of a scope, in their order, and returns their ids. A turn is a ``NewTurn``, a tuple of a role
        and a text, or a message as chat interfaces have it: a mapping with ``role`` and ``content``, and perhaps what
        else a ``NewTurn`` has.

        Turns that are there already, by id, role and text, are left as they are, so what failed half-way can be
        appended again. If one is refused, none is remembered. If the process is killed meanwhile, the first of them may
        be remembered without the others. Raises ``OtherText`` for an id that is there with another role or text, and
        ``MemoryFull``.

        >>> with Memory() as memory:
        ...     memory.append(Scope("acme"), [NewTurn("user", "Hello.", id="1"), ("assistant", "Hello!")])[0]
        ...     memory.append(Scope("acme"), [{"role": "user", "content": "Hello.", "id": "1"}])
        ...     memory.count(Scope("acme"))
        '1'
        ['1']
        2
        """
        return self._log.append(scope, turns)

    def append_all(self, turns: Iterable[tuple[Scope, Said]]) -> list[str]:
        """Remembers turns of any scopes, each a tuple of its scope and the turn, as ``append`` does.

        >>> with Memory() as memory:
        ...     hello = NewTurn("user", "Hello.", id="1")
        ...     memory.append_all([(Scope("acme", session="s1"), hello), (Scope("acme", session="s2"), hello)])
        ['1', '1']
        """
        return self._log.append_all(turns)

    def update(
        self,
        scope: Scope,
        id: str,
        text: str | None = None,
        *,
        importance: float | None = None,
        metadata: Mapping[str, _Value] | None = None,
        vector: _Coordinates | None = None,
    ) -> None:
        """Changes what is given of a turn; ``metadata`` is all of it. Earlier versions stay in its ``history``.

        Raises ``UnknownTurn``, also for one that was deleted.

        >>> with Memory() as memory:
        ...     [id] = memory.append(Scope("acme"), [("user", "I live in Basel.")])
        ...     memory.update(Scope("acme"), id, "I live in Bern.", importance=0.5)
        ...     memory.get(Scope("acme"), id).text
        'I live in Bern.'
        """
        self._log.update(scope, id, text, importance, metadata, vector)

    def delete(self, scope: Scope, id: str) -> None:
        """Deletes a turn. What it said stays in its ``history``, and in the memory of moments before, until it is
        erased. Its id is not used again. Raises ``UnknownTurn``.

        >>> with Memory() as memory:
        ...     [id] = memory.append(Scope("acme"), [("user", "I live in Basel.")])
        ...     memory.delete(Scope("acme"), id)
        ...     memory.get(Scope("acme"), id), len(memory.history(Scope("acme"), id))
        (None, 2)
        """
        self._log.delete(scope, id)

    def get(self, scope: Scope, id: str, *, at: datetime | None = None) -> Turn | None:
        """The turn with this id in exactly this scope, now or as it was at a moment; ``None`` if there is none.

        >>> with Memory() as memory:
        ...     before = memory.moment()
        ...     [id] = memory.append(Scope("acme"), [("user", "Hello.")])
        ...     memory.get(Scope("acme"), id).text, memory.get(Scope("acme"), id, at=before)
        ('Hello.', None)
        """
        return self._log.get(scope, id, at)

    def history(self, scope: Scope, id: str) -> list[Version]:
        """All versions of a turn, oldest first; none for one that is not there.

        >>> with Memory() as memory:
        ...     [id] = memory.append(Scope("acme"), [("user", "Hello.")])
        ...     [version.text for version in memory.history(Scope("acme"), id)]
        ['Hello.']
        """
        return self._log.history(scope, id)

    def window(
        self,
        scope: Scope,
        turns: int | None = None,
        *,
        tokens: int | None = None,
        count_by: Callable[[str], int] | None = None,
        at: datetime | None = None,
    ) -> list[Turn]:
        """The latest turns of a scope, oldest first: so many ``turns``, or as many as have so many ``tokens`` together,
        or the fewer of both. Of a scope without turns there are none.

        A turn that alone has more tokens than are left is not among them, nor is any before it. A token is about four
        letters, or ``count_by`` counts those of a text, such as a model's tokeniser. ``at`` asks the memory as it was
        at a moment; turns that were erased or have expired since are not in it.

        >>> with Memory() as memory:
        ...     ids = memory.append(Scope("acme"), [("user", "How are you?"), ("assistant", "Well.")])
        ...     [turn.message() for turn in memory.window(Scope("acme"), tokens=8, count_by=len)]
        [{'role': 'assistant', 'content': 'Well.'}]
        """
        if turns is None and tokens is None:
            raise TypeError("a window has so many `turns`, so many `tokens`, or both")
        if count_by is not None and (tokens is None or not callable(count_by)):
            raise TypeError(f"`count_by` is a function that counts the `tokens` of a text, not {said(count_by)}")
        turns = None if turns is None else whole("`turns`", turns)
        tokens = None if tokens is None else whole("`tokens`", tokens)
        return self._log.window(scope, turns, tokens, count_by, at)

    def recall(
        self,
        scope: Scope,
        text: str,
        k: int = 10,
        *,
        weights: Weights | None = None,
        half_life: float | timedelta = timedelta(days=30),
        min_score: float | None = None,
        at: datetime | None = None,
        vector: _Coordinates | None = None,
    ) -> list[Recalled]:
        """The ``k`` turns of a scope, 1 to 16,384, that fit a text best, best first, with the parts of their scores.
        The same memory gives the same answer, always. Of a scope without turns there are none.

        A score is the sum of its parts, each times its weight. After ``half_life``, in seconds or as a ``timedelta``, a
        turn's recency is half of what it was. A score below ``min_score`` is no result. ``at`` asks the memory as it
        was at a moment; turns that were erased or have expired since are not in it. ``vector`` is that of the text,
        where the memory has no embedder that makes it.

        >>> with Memory(embedder=Embedder()) as memory:
        ...     ids = memory.append(Scope("acme"), [("user", "I moved to Basel."), ("user", "Tea is hot.")])
        ...     [recalled] = memory.recall(Scope("acme"), "Where did I move?", k=1)
        >>> recalled.turn.text, recalled.parts.words > 0, recalled.parts.similarity > 0
        ('I moved to Basel.', True, True)
        """
        half_life = seconds("`half_life`", half_life, more=True)
        return self._log.recall(
            scope, text, whole("`k`", k, 1, _MOST_RECALLED), weights, half_life, min_score, at, vector
        )

    def count(self, scope: Scope) -> int:
        """How many turns a scope has.

        >>> with Memory() as memory:
        ...     memory.count(Scope("acme"))
        0
        """
        return self._log.count(scope)

    def scopes(self, within: Scope) -> list[Scope]:
        """The scopes within this one that have turns, or had some that were deleted and not erased, in no order.

        >>> with Memory() as memory:
        ...     ids = memory.append(Scope("acme", user="u1"), [("user", "Hello.")])
        ...     memory.scopes(Scope("acme"))
        [Scope('acme', user='u1')]
        """
        return self._log.scopes(within)

    def moment(self) -> datetime:
        """A moment of the memory, for ``at``: what was written before belongs to it, and what is written later does
        not.

        >>> with Memory() as memory:
        ...     ids, moment = memory.append(Scope("acme"), [("user", "Hello.")]), memory.moment()
        ...     deleted = memory.delete(Scope("acme"), *ids)
        ...     len(memory.window(Scope("acme"), 9, at=moment)), len(memory.window(Scope("acme"), 9))
        (1, 0)
        """
        return self._log.moment()

    def expire(self) -> int:
        """Erases what has expired, and says how many turns. It happens by itself, within a tenth of a second.

        >>> with Memory(ttl=3600) as memory:
        ...     memory.expire()
        0
        """
        return self._log.expire()

    def erase(self, scope: Scope, answers: Iterable[Any] = ()) -> Receipt:
        """Erases all turns of a scope, with their histories: texts, vectors, words, and every byte of them in the file,
        which becomes zeros. When it returns, that is on the disk. If the process is killed half-way, the next one that
        opens the memory finishes it before it reads anything. A scope without turns gives a receipt of nothing.

        ``answers`` are handles of services, or methods of these, whose answers are kept with ``Scope.tag`` as their
        tag: those about this scope, and the scopes within it that have turns, are erased first. If that fails, nothing
        of the memory is erased.

        >>> from sage import Keep, LocalEnvironment, Service
        >>> class Model(Service):
        ...     def ask(self, tag, question):
        ...         return question.upper()
        >>> env = LocalEnvironment("forgets")
        >>> memory = env.service("memory", Memory)
        >>> keep = {"ask": Keep(cache=1_000, tag=lambda tag, question: tag)}
        >>> model = env.service("model", Model, version="1", keep=keep)
        >>> session = Scope("acme", session="s1")
        >>> def talk(question):
        ...     answer = model.ask(session.tag(), question)
        ...     ids = memory.append(session, [("user", question), ("assistant", answer)])
        ...     return memory.erase(session, answers=[model])
        >>> receipts = env.from_batch(["tea?"]).map(talk).collect()
        >>> job = env.submit(autostop=True)
        >>> receipts[0].turns, receipts[0].answers
        (2, 1)
        """
        erasers = [_eraser(each) for each in answers]
        return self._log.erase(scope, (lambda tag: sum(erase(tag) for erase in erasers)) if erasers else None)

    def erase_turn(self, scope: Scope, id: str) -> Receipt:
        """Erases a turn with its history, as ``erase`` does. Answers of services that are about its scope stay. Raises
        ``UnknownTurn``.

        >>> with Memory() as memory:
        ...     [id] = memory.append(Scope("acme"), [("user", "My number is 555-0100.")])
        ...     memory.erase_turn(Scope("acme"), id).turns
        1
        """
        return self._log.erase_turn(scope, id)

    def compact(self, scope: Scope, keep: int, summarise: Callable[[list[Turn]], str]) -> Turn | None:
        """Puts one turn in the place of all turns of exactly this scope but the latest ``keep``: ``summarise`` makes
        its text of them, perhaps by asking a service. What stood there is erased. The summary has the role
        ``"summary"``, and the time of the last turn that it stands for. Returns it, and ``None`` where there is nothing
        to summarise. Nothing is locked meanwhile: raises ``TurnsChanged`` if one of the turns was changed, and changes
        nothing then.

        >>> with Memory() as memory:
        ...     ids = memory.append(Scope("acme"), [("user", "Hello."), ("assistant", "Hello!"), ("user", "Tea?")])
        ...     summary = memory.compact(Scope("acme"), 1, lambda turns: f"{len(turns)} greetings")
        ...     [turn.text for turn in memory.window(Scope("acme"), 9)]
        ['2 greetings', 'Tea?']
        """
        if not callable(summarise):
            raise TypeError(f"`summarise` is a function that is given turns and gives a text, not {said(summarise)}")
        return self._log.compact(scope, whole("`keep`", keep, 0), summarise)

    def keep_latest(self, scope: Scope, keep: int) -> int:
        """Erases all turns of exactly this scope but the latest ``keep``, and says how many.

        >>> with Memory() as memory:
        ...     ids = memory.append(Scope("acme"), [("user", "Hello."), ("user", "Tea?")])
        ...     memory.keep_latest(Scope("acme"), 1)
        1
        """
        return self._log.keep_latest(scope, whole("`keep`", keep, 0))

    def export(self, scope: Scope, path: str | os.PathLike[str]) -> int:
        """Writes the turns of a scope, with their histories and vectors, into a new file, for its owner only, and says
        how many. Writes to the memory wait meanwhile. The file has a line of JSON for each turn, and one before them;
        the guide says what is in them. Raises ``UnknownScope`` for a scope without turns.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "acme.jsonl")
        >>> with Memory() as memory, Memory() as other:
        ...     ids = memory.append(Scope("acme"), [("user", "Hello.")])
        ...     memory.export(Scope("acme"), path), other.import_(path)
        (1, Imported(turns=1, known=0, expired=0))
        """
        return self._log.export(scope, path)

    def import_(self, path: str | os.PathLike[str]) -> Imported:
        """Remembers the turns of a file that ``export`` has written, with their histories. Turns that are there already
        are left as they are, so an import that failed half-way can be repeated. Vectors of another embedder are made
        anew, if the memory has one; else it raises ``OtherEmbedder``. If a line is none, nothing is imported, and
        ``ValueError`` names it.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "acme.jsonl")
        >>> with Memory() as memory:
        ...     ids, turns = memory.append(Scope("acme"), [("user", "Hello.")]), memory.export(Scope("acme"), path)
        ...     memory.import_(path).known
        1
        """
        return Imported(*self._log.import_(path))

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


def _made_by(given: Any) -> tuple[str, int]:
    """What makes the vectors: an embedder, or its id and how many coordinates they have."""
    pair = given if isinstance(given, tuple) else (getattr(given, "id", None), getattr(given, "dimensions", None))
    if len(pair) != 2 or not isinstance(pair[0], str):
        raise TypeError(f"`vectors_made_by` is an embedder, or a tuple of its `id` and `dimensions`, not {said(given)}")
    return pair[0], whole("the dimensions of vectors", pair[1], 1, 1 << 16)


def _eraser(answers: Any) -> Callable[[str], int]:
    """What erases the answers of a service that have a tag."""
    if isinstance(answers, ServiceHandle):
        return partial(erase_answers, answers)
    binding = getattr(answers, "__self__", None)
    if isinstance(binding, Binding):
        return binding.erase
    raise TypeError(f"`answers` are handles of services, or methods of these, not {said(answers)}")
