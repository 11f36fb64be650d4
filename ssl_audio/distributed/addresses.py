"""Where process 0 listens and by which of its addresses a machine is reached; for `meeting.py`.

A host's own name is no guide: Debian gives it 127.0.1.1, and a machine on two networks has two addresses.
"""

import errno
import ipaddress
import socket
from typing import Any, NoReturn


class Refused(Exception):
    """The processes cannot work together.

    Attributes:
      status: exit status that fits.
      busy: another process has this one's number.
    """

    def __init__(self, message: str, status: int = 1, busy: bool = False):
        super().__init__(message)
        self.status, self.busy = status, busy


def split(coordinator: str) -> tuple[str, int]:
    """Return host, without brackets, and port of "host:port" as `environment.address` writes it."""
    host, _, port = coordinator.rpartition(":")
    return host.strip("[]"), int(port)


def plain(host: str) -> str:
    """Return an address without the form that IPv4 has inside IPv6."""
    return host.removeprefix("::ffff:") if "." in host else host


def literal(host: str) -> bool:
    """Tell whether this is an address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from its own machine only."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def resolve(host: str) -> list[str]:
    """Return the addresses of a name; none where it is not known."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(_numeric(address) for *_, address in found))


def is_local(host: str) -> bool:
    """Tell whether this machine has an address."""
    try:
        *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
            one.bind(address)
    except OSError:
        return False
    return True


def ends(connection: socket.socket) -> tuple[str, str]:
    """Return this side's and the other side's address of a connection."""
    return _numeric(connection.getsockname()), _numeric(connection.getpeername())


def own(given: str) -> str:
    """Return the address that SSL_AUDIO_ADDRESS gives to this process, "" for none.

    Raises:
      Refused: this machine does not have it.
    """
    found = resolve(given) if given else [""]
    for each in found:
        if not each or is_local(each):
            return each
    raise Refused(
        f"SSL_AUDIO_ADDRESS={given}: "
        + (f"{', '.join(found)} is no address of this machine" if found else "does not resolve")
        + ". Give the address by which the other machines reach this one, or leave it out."
    )


def listen(coordinator: str, address: str = "") -> socket.socket:
    """Return the socket on which process 0 listens: at an address that was given, else at all.

    Args:
      address: this process's own, where it was given; then the coordinator may be one of another machine
        that hands connections on.

    Raises:
      Refused: the port is taken, or the coordinator is not on this machine.
    """
    host, port = split(coordinator)
    found = [host] if literal(host) else resolve(host)
    if found and not address and not any(map(is_local, found)):
        named = host if literal(host) else f"{host} is {', '.join(found)}, which"
        _refuse(
            f"process 0 has to run where the coordinator is, and {named} is no address of this machine "
            f"({socket.gethostname()}). Start process 0 there, or name this machine in "
            "SSL_AUDIO_COORDINATOR as the others reach it; where another machine hands the connections on, "
            "set SSL_AUDIO_ADDRESS to this one's own address."
        )
    exact = literal(host) and not address
    try:
        return _bound(host if exact else "", port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            _refuse(
                f"port {port} of this machine ({socket.gethostname()}) is in use already: another run, or "
                "another program. End it, or give all processes another port: "
                f"SSL_AUDIO_COORDINATOR={coordinator.rpartition(':')[0]}:PORT."
            )
        _refuse(f"cannot listen at {coordinator}: {error.strerror}. Give another port or address.")


def _bound(host: str, port: int) -> socket.socket:
    if host:
        *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _listening(socket.AF_INET6 if ":" in host else socket.AF_INET, address)
    if socket.has_ipv6:
        try:
            return _listening(socket.AF_INET6, ("::", port), both=True)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
    return _listening(socket.AF_INET, ("", port))


def anywhere() -> socket.socket:
    """Return a socket that listens at all addresses, on any port."""
    return _bound("", 0)


def _listening(family: int, address: tuple, both: bool = False) -> socket.socket:
    one = socket.socket(family)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a start right after another
        if both:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        one.bind(address)
        one.listen(1024)
    except OSError:
        one.close()
        raise
    return one


def reserve() -> socket.socket:
    """Return a socket that keeps a port of this machine for the coordination service of JAX.

    It does not listen, and gRPC shares ports: the service can take the same one while this is open.
    """
    for host in ("127.0.0.1", "::1"):
        one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind((host, 0))
        except OSError:
            one.close()
            continue
        return one
    _refuse("neither 127.0.0.1 nor ::1 can be used here: is the interface lo up?")


def _numeric(address: tuple) -> str:
    return plain(socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0])


def _refuse(message: str) -> NoReturn:
    raise Refused(message)


def reach_by(address: str, client: Any) -> None:
    """Let the CPU's collectives use an address of this machine, not its name, which may be 127.0.1.1."""
    import jax
    from jax._src import xla_bridge
    from jax._src.lib import _jax
    from jax.extend import backend

    def make() -> Any:
        collectives = None  # as JAX is set
        if jax.config.jax_cpu_collectives_implementation == "gloo":  # pyright: ignore[reportAttributeAccessIssue]
            collectives = _jax.make_gloo_tcp_collectives(client, hostname=address)
        return xla_bridge.make_cpu_client(collectives)

    backend.register_backend_factory("cpu", make, priority=0, fail_quietly=False)
