"""Runs one program and leaves nothing of it behind, however this process, the program or the gateway ends (Linux).

Run as a script, with the standard library only, by `server.launching`:

    python -I -S reaper.py CONTROL_FD -- PROGRAM ARGUMENTS...

The gateway holds the other end of CONTROL_FD. When that closes - also because the gateway was killed - everything that the
program started is killed: its group, and what left the group, since orphans of the program become children of this process
(PR_SET_CHILD_SUBREAPER, prctl(2)). Exits with the program's exit code when the program ends by itself.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 100


def main(control: int, command: list[str]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # A signal that arrives wakes the poll below through this pipe (signal(7), self-pipe).
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _note)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the control pipe alone decides; a Ctrl-C reaches the gateway first
    pid = _start(libc, control, command)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):  # the program's pipes are the program's alone, so that its end is seen at once
        os.dup2(null, fd)
    os.dup2(null, 2)
    poll = select.poll()
    poll.register(control, select.POLLIN | select.POLLHUP)
    poll.register(wake_read, select.POLLIN)
    code = None
    while code is None:
        ready = {fd for fd, _ in poll.poll()}
        if wake_read in ready:
            os.read(wake_read, 512)
            code = _reaped(pid)
        if control in ready and not os.read(control, 512):
            break
    _kill_everything(pid)
    return code if code is not None else 128 + signal.SIGKILL


def _note(number: int, frame: FrameType | None) -> None:
    """A handler must be set, or the signal wakes nobody."""


def _start(libc: ctypes.CDLL, control: int, command: list[str]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(126)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.close(control)
        os.execve(command[0], command, dict(os.environ))  # noqa: S606 - the operator's list was asked before
    except OSError as e:
        os.write(2, f"{command[0]} can't be started: {e.strerror}\n".encode())
    finally:
        os._exit(127)


def _reaped(pid: int) -> int | None:
    """Takes every child that has ended; the program's exit code if it is among them."""
    code = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if not ended:
            return code
        if ended == pid:
            code = os.waitstatus_to_exitcode(status) if not os.WIFSIGNALED(status) else 128 + os.WTERMSIG(status)


def _kill_everything(pid: int) -> None:
    """The group, then children until none is left: each kill can hand us orphans of the killed."""
    for _ in range(_ROUNDS):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        for child in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children") as listed:
            return [int(number) for number in listed.read().split()]
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[3:]))
