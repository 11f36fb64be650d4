"""How processes meet and are refused, in one process: a coordinator and its workers on this machine."""

import contextlib
import json
import socket
import threading

import pytest

from ssl_audio.distributed import addresses
from ssl_audio.distributed.addresses import Refused
from ssl_audio.distributed.coordinator import Coordinator
from ssl_audio.distributed.rendezvous import AGAIN, Member
from ssl_audio.distributed.worker import Worker


@pytest.fixture
def place():
    """Return a coordinator's address that is free."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return f"127.0.0.1:{one.getsockname()[1]}"


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    """Close whatever a test opens."""
    opened = []
    for kind in (Coordinator, Worker):
        first = kind.__init__

        def init(self, *args, first=first):
            first(self, *args)
            opened.append(self)

        monkeypatch.setattr(kind, "__init__", init)
    yield
    for one in opened:
        if not one.loop.is_closed():
            one.close()


def meet(*rendezvous, seconds=5.0, heartbeat=0.2):
    """Let some meet at once; return what each raised."""
    raised = [None] * len(rendezvous)

    def one(number):
        try:
            rendezvous[number].meet(seconds, heartbeat)
        except Refused as refused:
            raised[number] = refused

    threads = [threading.Thread(target=one, args=(k,)) for k in range(len(rendezvous))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return raised


def test_processes_meet_and_know_each_other(place):
    three = [
        Coordinator(Member(0, 3, run="r", name="a"), place),
        Worker(Member(1, 3, run="r", name="b"), place),
        Worker(Member(2, 3, run="r", name="c"), place),
    ]
    assert meet(*three) == [None] * 3
    for one in three:
        assert one.names == {0: "process 0 (a)", 1: "process 1 (b)", 2: "process 2 (c)"}
        assert one.address == "127.0.0.1"
        assert one.unreached() == []


def test_what_a_worker_sends_to_its_service_arrives_at_that_of_process_0(place):
    two = Coordinator(Member(0, 2), place), Worker(Member(1, 2), place)
    assert meet(*two) == [None, None]
    with socket.socket() as service:  # in the place of JAX's, which shares the port that is kept
        service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        service.bind((two[0].loopback, two[0].port))
        service.listen()
        with socket.create_connection((two[1].loopback, two[1].port), 5) as client:
            client.sendall(b"ping")
            there, _ = service.accept()
            with there:
                assert there.recv(4) == b"ping"
                there.sendall(b"pong")
                assert client.recv(4) == b"pong"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"run": "runs/b"}, "it belongs to the run runs/b, and process 0 here to the run runs/a"),
        ({"job": "Slurm job 7, step 1, start 0"}, "the run runs/a, Slurm job 7, step 1, start 0"),
        ({"index": 2}, "wanted a number from 0 to 1, got 2"),
    ],
)
def test_a_stranger_is_refused_and_the_run_goes_on(place, other, words):
    lead = Coordinator(Member(0, 2, run="runs/a"), place)
    mine = Member(**({"index": 1, "count": 2, "run": "runs/a"} | other))
    stranger = Worker(mine, place)
    raised = [None]
    first = threading.Thread(target=lambda: raised.__setitem__(0, meet(stranger)[0]))
    late = threading.Timer(1.0, lambda: meet(Worker(Member(1, 2, run="runs/a"), place)))
    first.start()
    late.start()
    assert meet(lead) == [None]
    first.join(30)
    assert words in str(raised[0]) and raised[0].status == 1
    assert words in lead.refused[0]


def test_an_index_in_use_is_refused_with_its_holder(place):
    run = Coordinator(Member(0, 2, name="a"), place), Worker(Member(1, 2, name="b"), place)
    assert meet(*run) == [None, None]
    lost = []
    run[0].lost = lost.append
    [refused] = meet(Worker(Member(1, 2, name="c"), place), seconds=20)
    assert "the number 1 is that of process 1 (b)" in str(refused) and refused.status == 1
    assert not lost


def test_other_numbers_of_processes_end_all(place):
    raised = meet(Coordinator(Member(0, 2), place), Worker(Member(1, 3), place))
    for refused in raised:
        assert "was started for 2 processes" in str(refused) and "for 3" in str(refused)
        assert refused.status == 1


def test_who_does_not_come_is_named_to_all(place):
    lead = Coordinator(Member(0, 3), place)
    raised = meet(lead, Worker(Member(1, 3), place), seconds=1.0)
    lead.close()
    for refused in raised:
        assert "missing 2" in str(refused) and refused.status == AGAIN
    [refused] = meet(Worker(Member(1, 2), place), seconds=0.5)
    assert refused.status == AGAIN and "is this machine itself" in str(refused)


def test_noise_is_refused_and_not_answered(place):
    lead = Coordinator(Member(0, 2), place)
    thread = threading.Thread(target=meet, args=(lead,))
    thread.start()
    host, port = addresses.split(place)
    good = {"index": 1, "count": 2}
    for noise in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\xff\n",
        b"[" * 4000 + b"\n",
        b"null\n",
        json.dumps({"member": good | {"index": "1"}, "port": 1}).encode() + b"\n",
        json.dumps({"member": good | {"more": 1}, "port": 1}).encode() + b"\n",
        json.dumps({"relay": "guessed"}).encode() + b"\n",
    ):
        with socket.create_connection((host, port), 5) as one:
            one.sendall(noise)
            with contextlib.suppress(ConnectionError):
                assert one.recv(100) == b""
    assert meet(Worker(Member(1, 2), place)) == [None]
    thread.join(30)


def test_the_end_of_a_process_is_noticed(place):
    two = Coordinator(Member(0, 2), place), Worker(Member(1, 2), place)
    ended = threading.Event()
    two[0].lost = lambda index: ended.set() if index == 1 else None
    assert meet(*two) == [None, None]
    two[1].close()
    assert ended.wait(5)


def test_a_port_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(Refused, match=rf"port {port} of this machine .* is in use already"):
                addresses.listen(f"{host}:{port}").close()


def test_a_coordinator_on_another_machine_is_refused():
    with pytest.raises(Refused, match=r"192\.0\.2\.1 is no address of this machine"):
        addresses.listen("192.0.2.1:0")
    addresses.listen("192.0.2.1:0", address="127.0.0.1").close()  # connections are handed on


@pytest.mark.parametrize(
    ("given", "words"), [("192.0.2.1", "is no address of this"), ("no such", "does not resolve")]
)
def test_an_own_address_that_is_not_is_refused(given, words):
    with pytest.raises(Refused, match=words):
        addresses.own(given)
    assert addresses.own("127.0.0.1") == "127.0.0.1"
    assert addresses.own("") == ""
