"""The workloads of bench.sh, each timed inside one process. Prints `name value unit`."""
import argparse
import io
import multiprocessing
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import time

MIB = 1 << 20
SMALL = b"s" * 4096


def report(name, value, unit):
    print("%s %.1f %s" % (name, value, unit), flush=True)


def timed(action):
    start = time.monotonic()
    action()
    return time.monotonic() - start


def big(args):
    return os.path.join(args.mount, "bench-big")


def sequential_write(args):
    # The buffer is prepared before, so that the time of making random bytes does not count.
    piece = os.urandom(16 * MIB)

    def write():
        with open(big(args), "wb", buffering=0) as out:
            for _ in range(args.size_mib // 16):
                for at in range(0, len(piece), MIB):
                    out.write(memoryview(piece)[at:at + MIB])
            os.fsync(out.fileno())

    report("sequential_write", args.size_mib * MIB / 1e6 / timed(write), "MB/s")


def sequential_read(args):
    buffer = bytearray(MIB)

    def read():
        with open(big(args), "rb", buffering=0) as source:
            total = 0
            while count := source.readinto(buffer):
                total += count
            assert total == args.size_mib * MIB, total

    report(args.name, args.size_mib * MIB / 1e6 / timed(read), "MB/s")


def random_read(args):
    count = 4000
    source = random.Random(1)
    offsets = [source.randrange(args.size_mib * MIB // 4096) * 4096 for _ in range(count)]

    def read():
        handle = os.open(big(args), os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        for offset in offsets:
            assert len(os.pread(handle, 4096, offset)) == 4096
        os.close(handle)

    report("random_read_4k", count / timed(read), "1/s")


def folder(args, part):
    return os.path.join(args.mount, "bench-small-%d" % part)


def create(args, part, count):
    os.mkdir(folder(args, part))
    for number in range(count):
        with open(os.path.join(folder(args, part), "f%d" % number), "wb", buffering=0) as out:
            out.write(SMALL)


def small_files(args):
    report("create_small", args.files / timed(lambda: create(args, 0, args.files)), "1/s")


def stat_files(args):
    def stat():
        for number in range(args.files):
            os.stat(os.path.join(folder(args, 0), "f%d" % number))

    report("stat_small", args.files / timed(stat), "1/s")


def remove_files(args):
    def remove():
        for number in range(args.files):
            os.unlink(os.path.join(folder(args, 0), "f%d" % number))
        os.rmdir(folder(args, 0))

    report("remove_small", args.files / timed(remove), "1/s")


def small_files_eight(args):
    def run():
        workers = [multiprocessing.Process(target=create, args=(args, part, args.files // 8)) for part in range(1, 9)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0

    report("create_small_8_processes", args.files // 8 * 8 / timed(run), "1/s")


def untar(args):
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        source = random.Random(2)
        with tarfile.open(archive.name, "w") as tar:
            for number in range(3000):
                info = tarfile.TarInfo("bench-tree/d%d/f%d" % (number % 60, number))
                info.size = source.randrange(200, 16000)
                info.mtime = 1_000_000_000 + number
                tar.addfile(info, io.BytesIO(source.randbytes(info.size)))
        seconds = timed(lambda: subprocess.run(["tar", "-xf", archive.name, "-C", args.mount], check=True))
    report("untar_3000", seconds, "s")


def clean(args):
    for name in os.listdir(args.mount):
        if name.startswith("bench-"):
            path = os.path.join(args.mount, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def main():
    loads = [sequential_write, sequential_read, random_read, small_files, stat_files, remove_files, small_files_eight,
             untar, clean]
    by_name = {load.__name__.replace("_", "-"): load for load in loads}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("load", choices=by_name)
    parser.add_argument("mount")
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--name", default="sequential_read")
    args = parser.parse_args()
    by_name[args.load](args)


main()
