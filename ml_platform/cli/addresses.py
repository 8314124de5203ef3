"""Where the processes of a machine listen, unless told otherwise."""

import socket

from ml_platform.errors import BusyError, InvalidInputError

LOOPBACK = "127.0.0.1"
DAGSTER_PORT = 3000
MLFLOW_PORT = 5000
GATEWAY_PORT = 8080
ENGINE_PORT = 8100


def url_of(port: int, host: str = LOOPBACK) -> str:
    """The address of a server; an IPv6 host gets its brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def require_free(host: str, ports: dict[str, int]) -> None:
    """Raises InvalidInputError for the same port twice, BusyError for one that is taken; `ports` by option."""
    if len(set(ports.values())) < len(ports):
        raise InvalidInputError(f"{' and '.join(ports)} are the same port. Choose two.")
    for option, port in ports.items():
        if not port_is_free(host, port):
            raise BusyError(
                f"{host}:{port} cannot be bound: another program listens there, or the address is not this machine's. "
                f"End it, or choose another port with {option}."
            )


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now; addresses of connections that just ended count as free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
