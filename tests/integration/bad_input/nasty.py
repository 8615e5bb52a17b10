"""Generated arguments, most of which can never work, for registrations, operators' calls and the command line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from headwater.subscriptions.options import CURRENT, ORIGIN, Delivery, OnFailure, RetryPolicy, Start
from tests.integration.storage.nasty import filters, names, numbers, objects, texts, times

HANDLER = "tests.integration.bad_input.nasty:handle"


def handle(event: object) -> None:
    """A handler that can be imported."""


paths = st.one_of(
    st.sampled_from([HANDLER, "a:b", ":", "a:", ":b", "no.such:thing", "a:b:c", "os:system", "../x:y", "a.b"]), names
)
spans = st.one_of(
    st.sampled_from(
        [
            timedelta(0),
            timedelta(seconds=1),
            timedelta(seconds=-1),
            timedelta.max,
            timedelta.min,
            timedelta(microseconds=1),
        ]
    ),
    numbers,
)
shares = st.one_of(st.sampled_from([0.0, 0.5, 1.0, -0.1, 1.1, float("nan"), float("inf"), 10**400, 1e300]), numbers)
deliveries = st.one_of(st.sampled_from([*Delivery, "exactly-once"]), objects)
starts = st.one_of(st.sampled_from([ORIGIN, CURRENT, *Start, "origin", 0, 2**63 - 1]), times, numbers)
error_classes = st.one_of(
    st.just(()), st.sampled_from([(ValueError,), (int,), ("ValueError",), [KeyError], ValueError]), objects
)
resources = st.one_of(
    st.just(()),
    st.lists(st.tuples(names, shares), max_size=2).map(tuple),
    st.sampled_from([(("GPU",),), "GPU"]),
    objects,
)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate keyword arguments: few of them, so that the good ones come through, too."""
    pairs = [st.tuples(st.just(name), values) for name, values in fields.items()]
    return st.lists(st.one_of(pairs), max_size=3).map(dict)


retry_fields = some(
    attempts=numbers,
    first_delay=spans,
    factor=shares,
    max_delay=spans,
    jitter=shares,
    then=st.one_of(st.sampled_from([*OnFailure, "park"]), objects),
    never=error_classes,
)


def made(kind: Callable[..., Any], fields: dict[str, Any]) -> Any:
    """Make the value; what refuses to be made is the refusal itself."""
    try:
        return kind(**fields)
    except Exception as error:  # noqa: BLE001  # whoever asked looks at which one
        return error


option_fields = some(
    source=names,
    where=filters,
    start=starts,
    delivery=deliveries,
    batch_size=numbers,
    consumers=numbers,
    partition_by=st.one_of(
        st.sampled_from(["stream", "none", "category", "data.x", "data.", "metadata.a.b", "x.y"]), paths
    ),
    # Sound numbers of partitions are small: each one is a row.
    partitions=st.one_of(st.integers(-2, 4), st.sampled_from([10_001, 2**31, 2**63, 10**400]), objects),
    selector=st.one_of(st.none(), paths),
    mapper=st.one_of(st.none(), paths),
    read_size=numbers,
    max_in_flight=numbers,
    checkpoint_events=numbers,
    checkpoint_interval=spans,
    poll_interval=spans,
    handler_timeout=st.one_of(st.none(), spans),
    retry=st.one_of(retry_fields.map(lambda fields: made(RetryPolicy, fields)), objects),
    breaker=numbers,
    drain_timeout=spans,
    resources=resources,
)
registrations = st.tuples(st.one_of(st.just("mine"), names), st.one_of(st.just(HANDLER), paths), option_fields)

subscriptions = st.one_of(st.sampled_from(["mine", "mine", "mine", "nothing"]), names)
json_values = st.recursive(
    st.one_of(names, numbers, times),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)
command_arguments = st.one_of(
    st.none(),
    some(to=numbers, node=names, position=numbers, reason=names),
    st.dictionaries(st.text(max_size=4), json_values, max_size=2),
    objects,
)
verbs = st.one_of(st.sampled_from(["pause", "resume", "stop", "rewind", "move", "retry", "discard"]), names)
partitions = st.one_of(st.none(), numbers)

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


def call(name: str, *arguments: st.SearchStrategy[Any], **options: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    """Generate a call of a client: each option is there or not."""
    return st.tuples(st.just(name), st.tuples(*arguments), st.fixed_dictionaries({}, optional=options))


client_calls = st.one_of(
    call("status"),
    call("hosts"),
    call("partitions", subscription=subscriptions),
    call("number_at", subscriptions, st.one_of(numbers, times)),
    call("wait_for", subscriptions, position=numbers, timeout=st.sampled_from([0, -1, 0.0, "soon", None])),
    call("replay", subscriptions, first=numbers, last=numbers, partition=partitions, side_effects=st.booleans()),
    call("replays", subscription=subscriptions),
    call("replace", subscriptions, names, handler=paths),
    call("replacements"),
    call("repartition", subscriptions, numbers, dry_run=st.booleans()),
    call("pause", subscriptions, reason=names),
    call("resume", subscriptions, reason=names),
    call("retry_parked", subscriptions, limit=numbers, rate=numbers, reason=names, dry_run=st.booleans()),
    call("cancel_retry", subscriptions, reason=names, dry_run=st.booleans()),
    call("discard_parked", subscriptions, limit=numbers, release=st.booleans(), reason=names, dry_run=st.booleans()),
    call("rewind", subscriptions, numbers, partition=partitions),
    call("move", subscriptions, names, partition=partitions),
    call("drain", names),
    call("parked", subscriptions),
    call("audit", subscription=subscriptions, limit=numbers, since=times),
    call("command", subscriptions, verbs, command_arguments, partition=partitions, dry_run=st.booleans()),
    call("command", subscriptions, verbs, command_arguments, partition=partitions, dry_run=st.booleans()),
)

words = st.one_of(
    texts,
    numbers.map(lambda number: f"{number!r:.400}"),
    times.map(str),
    st.sampled_from(
        ["mine", "bystander", "--", "-", "--json", "--dry-run", "0", "-1", "now", "2013-07-01", "infinity"]
    ),
)
flags = st.sampled_from(
    [
        "--partition",
        "--to",
        "--reason",
        "--position",
        "--retry",
        "--discard",
        "--release",
        "--limit",
        "--rate",
        "--since",
        "--json",
        "--wait",
        "--dry-run",
        "--schema",
        "--node",
        "--no-such",
    ]
)
verbs_of_the_command_line = st.sampled_from(
    [
        "status",
        "subscriptions",
        "nodes",
        "parked",
        "audit",
        "pause",
        "resume",
        "rewind",
        "move",
        "drain",
        "migrations",
        "migrate",
        "drop",
        "run",
        "ranges",
        "verify",
        "forget",
    ]
)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Generate the words of one command line; what would go on running is left out."""
    verb = draw(verbs_of_the_command_line)
    one, two = st.tuples(st.one_of(words, flags)), st.tuples(flags, words)
    rest = [word for part in draw(st.lists(st.one_of(one, two), max_size=4)) for word in part]
    if verb == "run":
        rest = [
            draw(st.sampled_from(["", ":", "a:b", "os:path", "headwater:App", "\ud800:x", "nul\0:x", "x" * 5000])),
            *rest,
        ]
    # A schema of any name would be made, and slowly.
    return [verb, *rest, *(["--dry-run"] if verb == "migrate" else [])]
