"""What is tried again, for how long, and what is said in the end."""

from __future__ import annotations

import errno
import itertools
from typing import Any

import pytest

from synfer_rt.data.storage import patience
from synfer_rt.data.storage.addresses import Address
from synfer_rt.data.storage.patience import patiently, reason
from synfer_rt.errors import UserError

ADDRESS = Address("s3", "bucket", "faces")


def error(kind: str, module: str, text: str = "no", **attributes: Any) -> Exception:
    """An exception as a store's library raises it: of this class and package."""
    made = type(kind, (Exception,), {"__module__": f"{module}.exceptions"})(text)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def of_s3(status: int, kind: type[OSError] = OSError, number: int = errno.EIO) -> OSError:
    """An OSError as s3fs raises it, from one of botocore with the answer."""
    answer = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": "X"}}
    made = kind(number, "said the server")
    made.__cause__ = error("ClientError", "botocore", response=answer)
    return made


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience, "time", made)
    return made


def failing(times: int, raised: Exception) -> Any:
    """A call that raises so many times, then returns how often it was called."""
    calls = itertools.count(1)

    def call() -> int:
        number = next(calls)
        if number <= times:
            raise raised
        return number

    return call


PASSING = [
    ConnectionResetError("cut"),
    TimeoutError(),
    OSError(errno.EBUSY, "SlowDown"),
    of_s3(503),
    of_s3(500),
    of_s3(409),
    of_s3(429),
    error("HTTPClientError", "botocore"),
    error("ClientError", "aiohttp"),
    error("TransportError", "httpx2"),
    error("HttpError", "gcsfs", code=503),
]


@pytest.mark.parametrize("raised", PASSING, ids=repr)
def test_a_store_that_does_not_answer_is_asked_again(clock, caplog, raised):
    assert patiently(ADDRESS, failing(3, raised)) == 4
    assert len(clock.slept) == 3 and clock.slept[0] < clock.slept[2]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("s3://bucket/faces does not answer (")
    assert warning.endswith("trying again for 5 minutes.")


def test_after_a_time_it_is_said_that_it_does_not_answer(clock):
    with pytest.raises(
        UserError, match=r"has not answered for 5 minutes \(cut\)\. What is finished"
    ):
        patiently(ADDRESS, failing(10**9, ConnectionResetError("cut")))
    assert patience.PATIENCE * 0.9 < sum(clock.slept) <= patience.PATIENCE
    assert max(clock.slept) <= 20


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (of_s3(403, PermissionError), "refuses access"),
        (OSError("Forbidden: https://x\nno"), "refuses access"),
        (
            error(
                "HfHubHTTPError", "huggingface_hub", response=type("R", (), {"status_code": 401})()
            ),
            "refuses access",
        ),
        (error("NoCredentialsError", "botocore"), "no credentials for s3://bucket/faces"),
        (error("ProfileNotFound", "botocore"), "no credentials"),
        (of_s3(400, number=errno.EINVAL), "cannot be used"),
        (error("ParamValidationError", "botocore", "Invalid bucket name"), "Invalid bucket name"),
        (error("SSLError", "botocore", "CERTIFICATE_VERIFY_FAILED"), "cannot be used"),
    ],
    ids=repr,
)
def test_what_does_not_pass_is_said_at_once(clock, raised, said):
    with pytest.raises(UserError, match=said):
        patiently(ADDRESS, failing(1, raised))
    assert not clock.slept


@pytest.mark.parametrize(
    "raised", [FileNotFoundError("x"), FileExistsError("x"), OSError(errno.ENOSPC, "No space left")]
)
def test_what_the_caller_knows_best_passes_through(clock, raised):
    with pytest.raises(type(raised)) as found:
        patiently(ADDRESS, failing(1, raised))
    assert found.value is raised and not clock.slept


def test_a_reason_is_one_short_line_without_passwords():
    text = 'Could not connect to "http://me:hush@host:9000/x"\nmore ' + "x" * 500
    assert reason(OSError(text)) == 'Could not connect to "http://…@host:9000/x"'
    assert reason(TimeoutError()) == "TimeoutError"
    assert len(reason(OSError("y" * 500))) == 200
