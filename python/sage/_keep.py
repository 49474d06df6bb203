"""What is kept of a service's answers: in a cache, or in the journal of a run. See ``call_policy/keep.rs``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ._arguments import folder, said, seconds, text, truth, whole
from ._keywords import spelt

#: The most bytes of an answer that can be kept.
_MOST_BYTES = (1 << 32) - 1


@spelt
@dataclass(frozen=True)
class Cache:
    """Where the answers of a method are remembered: in memory, on disk, or in both.

    ``memory``: how many answers there are in memory at most, 1 or more, with ``memory_bytes`` bytes of them (default:
    64 MiB). ``disk``: the folder of a file of ``disk_bytes`` bytes at most (default: 1 GiB). One process at a time uses
    a folder; where another does, the job's first call raises, or with ``when_in_use="go on"`` the job runs without. In
    memory those that were not asked for longest go first, on disk the oldest. ``time_to_live``: for how many seconds an
    answer is used; default: for ever. An answer of more than ``largest_answer`` bytes (default: 64 MiB) is not kept on
    disk.

    >>> env = LocalEnvironment("cached")
    >>> prices = env.service("prices", dict, [{"tea": 3}], version="1", keep={"get": Keep(cache=Cache(memory=1_000))})
    >>> found = env.from_batch(["tea", "tea"]).map(prices.get).collect()
    >>> policy = env.submit(autostop=True).metrics().services["prices"].policy
    >>> found, policy.attempts
    ([3, 3], 1)
    """

    memory: int | None = None
    memory_bytes: int = 64 << 20
    disk: Any = None
    disk_bytes: int = 1 << 30
    time_to_live: float | None = None
    when_in_use: str = "fail"
    largest_answer: int = 64 << 20


@spelt
@dataclass(frozen=True)
class Journal:
    """Keeps the answers of a run in a folder of its own: each before it is handed on. The same run, started again after
    a kill, makes no call a second time whose answer was handed on. Calls that were out may be made again; the report
    names them.

    ``sync=True``: an answer is on the medium before it is handed on, and outlives a loss of power, too. ``full_disk``:
    whether a call whose answer finds no room fails (``"fail"``), or goes on and is counted (``"go on"``). A call whose
    answer has more than ``largest_answer`` bytes (default: 64 MiB) fails.

    >>> from tempfile import mkdtemp
    >>> env = LocalEnvironment("monday")
    >>> keep = {"get": Keep(journal=True)}
    >>> prices = env.service("prices", dict, [{"tea": 3}], version="1", journal=Journal(mkdtemp()), keep=keep)
    >>> found = env.from_batch(["tea"]).map(prices.get).collect()
    >>> job = env.submit(autostop=True)
    >>> job.metrics().services["prices"].policy.journal["entries"]
    1
    """

    folder: Any
    sync: bool = False
    full_disk: str = "fail"
    largest_answer: int = 64 << 20


@spelt
@dataclass(frozen=True)
class Keep:
    """How the answers of a method are kept. They belong to the service's name, its ``version``, the method, the
    arguments of the call, and the ``sample`` of its handle. Calls with equal arguments that are made at the same time
    share one. Exceptions are not kept.

    ``cache``: a number of answers in memory, or a ``Cache``. ``journal``: whether they are kept in the service's
    journal. ``tag``: a function that is given the arguments of a call, and returns a text by which ``erase_answers``
    finds its answer, such as a user's id, or ``None``. ``codec``: ``"json"``, or ``"pickle"``, which can make any code
    run, so the folder must be one that nobody else can write to. Each caller gets an object of its own. As JSON they
    are ``None``, booleans, numbers, texts, and lists and dicts with texts as keys of these; a call with another answer
    raises if it is to be in a journal, and is not kept otherwise.

    A call is known by the JSON of its arguments. One with others, such as a tuple or NaN, is made each time and counted
    (``uncached``). ``arguments`` is a function that is given them, and returns what the call is known by instead, or
    ``None`` for one whose answer is not to be kept.

    >>> env = LocalEnvironment("kept")
    >>> keep = {"get": Keep(cache=1_000, arguments=lambda name: name.lower())}
    >>> prices = env.service("prices", dict, [{"tea": 3}], version="1", keep=keep)
    >>> found = env.from_batch(["tea", "Tea"]).map(prices.get).collect()
    >>> job = env.submit(autostop=True)
    >>> found
    [3, 3]
    """

    cache: int | Cache | None = None
    journal: bool = False
    tag: Callable[..., str | None] | None = None
    arguments: Callable[..., Any] | None = None
    codec: str = "json"


class Coded(NamedTuple):
    """Makes bytes of answers, and answers of bytes."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class Keeping(NamedTuple):
    """The same, as the engine takes it: see ``keep.rs``."""

    cache: Cache | None
    journal: bool
    form: Callable[[tuple[Any, ...], dict[str, Any] | None], tuple[bytes | None, str | None]]
    coded: Coded


def _word(what: str, value: Any, words: tuple[str, str]) -> str:
    if value not in words:
        raise ValueError(f'{what} is "{words[0]}" or "{words[1]}", not {said(value)}')
    return str(value)


def _cache(cache: Any) -> Cache:
    """Checks a cache: a number of answers in memory, or an object."""
    if not isinstance(cache, Cache):
        return Cache(whole("`cache`, of answers in memory,", cache))
    lives = cache.time_to_live
    if lives is not None:
        lives = seconds("`time_to_live` of a Cache", lives, more=True, hint="; leave it out for ever")
    if cache.memory is None and cache.disk is None:
        raise ValueError("a Cache has `memory`, a number of answers, or `disk`, a folder")
    return Cache(
        None if cache.memory is None else whole("`memory` of a Cache, of answers,", cache.memory),
        whole("`memory_bytes` of a Cache", cache.memory_bytes),
        None if cache.disk is None else folder("`disk` of a Cache", cache.disk),
        whole("`disk_bytes` of a Cache", cache.disk_bytes),
        lives,
        _word("`when_in_use` of a Cache", cache.when_in_use, ("fail", "go on")),
        whole("`largest_answer` of a Cache", cache.largest_answer, 1, _MOST_BYTES),
    )


def journal_of(journal: Any) -> Journal:
    """Checks a journal: a folder, or an object."""
    if not isinstance(journal, Journal):
        return Journal(folder("`journal`", journal))
    return Journal(
        folder("`folder` of a Journal", journal.folder),
        truth("`sync` of a Journal", journal.sync),
        _word("`full_disk` of a Journal", journal.full_disk, ("fail", "go on")),
        whole("`largest_answer` of a Journal", journal.largest_answer, 1, _MOST_BYTES),
    )


def kept(keep: Any, version: Any, journal: Journal | None) -> dict[str, Keeping]:
    """Checks what is kept of a service of this version."""
    if not isinstance(keep, Mapping):
        what = '`keep` says of methods how their answers are kept, such as {"chat": Keep(cache=1_000)}'
        raise TypeError(f"{what}, not {said(keep)}")
    for method, how in keep.items():
        text("the name of a method in `keep`", method)
        if not isinstance(how, Keep):
            raise TypeError(f"`keep` has a Keep for each method, and for `{method}` not {said(how)}")
        if how.journal and journal is None:
            raise ValueError(f'`{method}` keeps its answers in a journal: give the service one, as `journal="runs/x"`')
    if keep and version is None:
        raise ValueError("answers are kept for a version of the service, and for no other: give it a `version`")
    return {method: _keeping(method, how) for method, how in keep.items()}


def _keeping(method: str, keep: Keep) -> Keeping:
    for name in ("tag", "arguments"):
        if getattr(keep, name) is not None and not callable(getattr(keep, name)):
            what = f"`{name}` of a Keep is a function that is given the arguments of a call"
            raise TypeError(f"{what}, not {said(getattr(keep, name))}")
    is_pickled = _word("`codec` of a Keep", keep.codec, ("json", "pickle")) == "pickle"
    cache = None if keep.cache is None else _cache(keep.cache)
    in_journal = truth("`journal` of a Keep", keep.journal)
    return Keeping(cache, in_journal, _form(method, keep), _pickled() if is_pickled else Coded(_encoded, json.loads))


def _form(method: str, keep: Keep) -> Callable[..., tuple[bytes | None, str | None]]:
    """What tells what the arguments of a call are known by, and the tag of its answer."""
    known_by, tagged = keep.arguments, keep.tag

    def form(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> tuple[bytes | None, str | None]:
        given = kwargs or {}
        if known_by is None:
            known: Any = [list(args), given]
        else:
            known = known_by(*args, **given)
            if known is None:
                return None, None
        tag = None if tagged is None else tagged(*args, **given)
        if tag is not None and not isinstance(tag, str):
            raise TypeError(f"`tag` of the answers of `{method}` is a text or None, not {said(tag)}")
        try:
            return _json(known, sort_keys=True, allow_nan=False), tag
        except (TypeError, ValueError, RecursionError):
            return None, tag

    return form


def _json(value: Any, sort_keys: bool = False, allow_nan: bool = True) -> bytes:
    made = json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), allow_nan=allow_nan).encode()
    _check_plain(value)
    return made


def _encoded(answer: Any) -> bytes:
    try:
        return _json(answer)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f'an answer cannot be kept as JSON, but with `codec="pickle"` perhaps: {error}') from None


_PLAIN = frozenset((str, int, float, bool, type(None)))


def _check_plain(value: Any) -> None:
    """Raises for a value that another one has the same JSON as."""
    kind = type(value)
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise TypeError("a dict has keys that are no texts")
        value = value.values()
    elif kind is not list:
        if kind not in _PLAIN:
            raise TypeError(f"{kind.__name__} is not of JSON")
        return
    if not _PLAIN.issuperset(map(type, value)):
        for each in value:
            _check_plain(each)


def _pickled() -> Coded:
    import pickle  # only if it is asked for

    return Coded(pickle.dumps, pickle.loads)


def erase_answers(service: Any, tag: str) -> int:
    """Erases the answers of a service that are kept under a tag, in memory, on disk and in the journal: their bytes are
    overwritten. Returns how many there were. ``service`` is its handle, while the job runs.

    >>> env = LocalEnvironment("forgets")
    >>> keep = {"get": Keep(cache=1_000, tag=lambda name: name)}
    >>> prices = env.service("prices", dict, [{"tea": 3}], version="1", keep=keep)
    >>> found = env.from_batch(["tea"]).map(prices.get).map(lambda price: erase_answers(prices, "tea")).collect()
    >>> job = env.submit(autostop=True)
    >>> found
    [1]
    """
    from ._handles import ServiceHandle
    from ._sage import Binding

    if not isinstance(service, ServiceHandle):
        raise TypeError(f"`erase_answers` takes the handle of a service, not {said(service)}")
    binding = service.__dict__["_sage"][0]
    if not isinstance(binding, Binding):
        raise RuntimeError("answers are erased in the job's own process, not in a worker process")
    return binding.erase(text("a tag", tag))
