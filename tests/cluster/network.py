"""Machines with names and addresses of their own on a network whose links can be cut, delayed and lossy.

Each is a network namespace with a TUN device; a thread here carries the packets, so that no kernel module
for queueing is needed. Needs root, `ip` and `unshare`.
"""

import contextlib
import fcntl
import heapq
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from processes import Processes
from reference import ROOT

SET_DEVICE, TUN, BARE = 0x400454CA, 0x0001, 0x1000  # of <linux/if_tun.h>
ENTER = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && hostname "$3" && cd "$4" && '


def missing():
    """Return what this machine lacks for a network of namespaces; "": nothing."""
    if os.getuid() != 0:
        return "network namespaces need root"
    if not all(map(shutil.which, ("ip", "unshare", "mount"))):
        return "ip (iproute2), unshare or mount is missing"
    if not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun"
    made = subprocess.run(["ip", "netns", "add", "ssl_audio_probe"], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", "ssl_audio_probe"], check=True)
    return ""


class Network:
    """Machines `a`, `b`, … at 10.77.N.1, 2, … (fd77:N::1, 2, … too) for each of the given networks.

    Args:
      machines: machine: the numbers of the networks that it is on.
      hosts: machine: lines of its /etc/hosts; default: its own name is 127.0.1.1, the others' are theirs.
      ipv4: whether there are IPv4 addresses beside those of IPv6.
    """

    def __init__(self, machines, hosts=None, ipv4=True):
        self.machines, self.ipv4 = machines, ipv4
        self.names = sorted(machines)
        self.folder = tempfile.TemporaryDirectory()
        self.devices, self.where = {}, {}
        self.cut, self.delay, self.loss = set(), 0.0, 0.0
        self.chance = random.Random(0)
        self.over = False
        self.hosts = hosts or {}

    def address(self, name, network=0, version=4):
        """Return the address of a machine on a network."""
        number = self.names.index(name) + 1
        return f"10.77.{network}.{number}" if version == 4 else f"fd77:{network}::{number}"

    def __enter__(self):
        for name in self.names:
            space = self.space(name)
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
            for network in self.machines[name]:
                device = f"t{os.getpid() % 10**7}{name}{network}"
                handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                fcntl.ioctl(handle, SET_DEVICE, struct.pack("16sH22x", device.encode(), TUN | BARE))
                _ip("link", "set", device, "netns", space)
                if self.ipv4:
                    _ip(
                        "-n",
                        space,
                        "addr",
                        "add",
                        f"{self.address(name, network)}/24",
                        "dev",
                        device,
                    )
                six = f"{self.address(name, network, 6)}/64"
                _ip("-n", space, "addr", "add", six, "dev", device, "nodad")
                _ip("-n", space, "link", "set", device, "up")
                self.devices[handle] = name
                for version in (4, 6):
                    packed = socket.inet_pton(
                        socket.AF_INET if version == 4 else socket.AF_INET6,
                        self.address(name, network, version),
                    )
                    self.where[packed] = handle
        threading.Thread(target=self._carry, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over = True
        time.sleep(0.3)
        for handle in self.devices:
            os.close(handle)
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", self.space(name)], check=False)
        self.folder.cleanup()

    def space(self, name):
        """Return the namespace of a machine."""
        return f"ssl_audio_{os.getpid()}_{name}"

    def enter(self, name, command, mounts=""):
        """Return the command that runs another one on a machine."""
        known = self.hosts.get(name)
        if known is None:
            version = 4 if self.ipv4 else 6
            others = [
                (self.address(o, self.machines[o][0], version), o) for o in self.names if o != name
            ]
            known = [f"127.0.1.1 {name}", *(f"{address} {other}" for address, other in others)]
        file = f"{self.folder.name}/{name}.hosts"
        with open(file, "w") as out:
            out.write("\n".join(["127.0.0.1 localhost", "::1 localhost", *known, ""]))
        empty = f"{self.folder.name}/resolv.conf"
        open(empty, "w").close()
        run = f'{ENTER}{mounts}shift 4 && exec "$@"'
        inside = [
            "unshare",
            "--mount",
            "--uts",
            "sh",
            "-c",
            run,
            "sh",
            file,
            empty,
            name,
            str(ROOT),
        ]
        return ["ip", "netns", "exec", self.space(name), *inside, *command]

    def cut_between(self, one, other, both=True):
        """Lose what one machine sends to another, and the reverse."""
        self.cut |= {(one, other)} | ({(other, one)} if both else set())

    def mend(self):
        """Lose nothing any more."""
        self.cut = set()

    def _carry(self):
        waiting, count = [], 0
        while not self.over:
            pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.2
            for handle in select.select(list(self.devices), [], [], min(pause, 0.2))[0]:
                with contextlib.suppress(OSError):
                    packet = os.read(handle, 65536)
                    version = packet[0] >> 4
                    to = self.where.get(packet[16:20] if version == 4 else packet[24:40])
                    if to is None or (self.devices[handle], self.devices[to]) in self.cut:
                        continue
                    if self.chance.random() < self.loss:
                        continue
                    count += 1
                    heapq.heappush(waiting, (time.monotonic() + self.delay, count, to, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(waiting)
                with contextlib.suppress(OSError):
                    os.write(to, packet)


class Spread(Processes):
    """Processes of one run, one on each of these machines; `coordinator` is what all are given."""

    def __init__(
        self, network, machines, arguments, environment, coordinator, mounts=None, own=None
    ):
        self.outputs, self.started = [], []
        for index, name in enumerate(machines):
            self.add(
                network,
                name,
                arguments,
                environment
                | {
                    "JAX_NUM_CPU_DEVICES": "1",
                    "SSL_AUDIO_COORDINATOR": coordinator,
                    "SSL_AUDIO_PROCESSES": str(len(machines)),
                    "SSL_AUDIO_PROCESS": str(index),
                }
                | (own or {}).get(name, {}),
                (mounts or {}).get(name, ""),
            )

    def add(self, network, name, arguments, environment, mounts=""):
        """Start one more process on a machine."""
        output = tempfile.TemporaryFile("w+", errors="replace")
        command = network.enter(name, [sys.executable, *arguments], mounts)
        self.started.append(
            subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        )
        self.outputs.append(output)


def _ip(*words):
    subprocess.run(["ip", *words], check=True)
