"""Locks as programs take them: python3 locks.py COMMAND FILE [ARGUMENT...]

hold KIND            takes a lock, prints "held", and keeps it until standard input ends
try KIND             prints "got" or the name of the error
wait KIND            waits for the lock, and prints "got" or the name of the error; a signal to it is SIGALRM
count KIND TIMES     adds one to the number in the file, under the lock, so many times
reopen KIND          like hold, through a second handle; a child ends meanwhile that has kept the first one open
test                 prints what F_GETLK says of an exclusive lock of the whole file

KIND is flock, range:FIRST:LENGTH, shared:FIRST:LENGTH, or ofd:FIRST:LENGTH.
"""

import errno
import fcntl
import os
import signal
import struct
import sys

F_OFD_SETLK, F_OFD_SETLKW = 37, 38
LOCK = "hhqqi4x"


def take(fd, kind, wait):
    if kind == "flock":
        return fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    name, first, length = kind.split(":")
    mode = fcntl.F_RDLCK if name == "shared" else fcntl.F_WRLCK
    ofd, posix = (F_OFD_SETLKW, fcntl.F_SETLKW) if wait else (F_OFD_SETLK, fcntl.F_SETLK)
    wanted = struct.pack(LOCK, mode, os.SEEK_SET, int(first), int(length), 0)
    fcntl.fcntl(fd, ofd if name == "ofd" else posix, wanted)


def leave(fd, kind):
    if kind == "flock":
        return fcntl.flock(fd, fcntl.LOCK_UN)
    name, first, length = kind.split(":")
    unlocked = struct.pack(LOCK, fcntl.F_UNLCK, os.SEEK_SET, int(first), int(length), 0)
    fcntl.fcntl(fd, F_OFD_SETLK if name == "ofd" else fcntl.F_SETLK, unlocked)


def interrupted(number, frame):
    raise InterruptedError(errno.EINTR, "interrupted")


def attempt(fd, kind, wait):
    try:
        take(fd, kind, wait)
        print("got", flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)


def main(command, path, *rest):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if command == "hold":
        take(fd, rest[0], False)
        print("held", flush=True)
        for line in sys.stdin:
            attempt(fd, line.strip(), True)
    elif command == "reopen":
        take(fd, rest[0], False)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(fd)
        fd = os.open(path, os.O_RDWR)
        take(fd, rest[0], False)
        os.close(writer)
        os.waitpid(child, 0)
        print("held", flush=True)
        sys.stdin.read()
    elif command == "try":
        attempt(fd, rest[0], False)
    elif command == "wait":
        signal.signal(signal.SIGALRM, interrupted)
        print("waiting", flush=True)
        attempt(fd, rest[0], True)
    elif command == "count":
        for _ in range(int(rest[1])):
            take(fd, rest[0], True)
            number = int(os.pread(fd, 20, 0) or b"0")
            os.pwrite(fd, b"%d" % (number + 1), 0)
            leave(fd, rest[0])
    elif command == "test":
        asked = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        mode, _, first, length, _ = struct.unpack(LOCK, asked)
        print({fcntl.F_UNLCK: "free", fcntl.F_RDLCK: "shared", fcntl.F_WRLCK: "exclusive"}[mode], first, length)


main(*sys.argv[1:])
