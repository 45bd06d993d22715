"""A machine outside the group that mounts the ring, with an address of its own and an operator's keys."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from . import processes
from .netns import Namespace

GUEST = Path(__file__).parent / "guest"
BACKGROUND_ENDS_SECONDS = 30.0


class Workstation:
    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        binaries: tuple[Path, ...],
        aws: Mapping[str, str],
        let_in: Callable[[], None],
    ) -> None:
        """`let_in` sees to it that the operator has an identity in each ring; called before each mount."""
        self.namespace, self.folder, self._let_in = namespace, folder, let_in
        folder.mkdir(parents=True)
        self.point = folder / "mnt"
        self.point.mkdir()
        self._environment = {**os.environ, **aws, "PATH": ":".join([*map(str, binaries), os.environ["PATH"]])}
        self._process: subprocess.Popen[bytes] | None = None
        self._background: int | None = None
        self.log_path = folder / "mount.log"

    def mount(self, source: str, seconds: float = 60.0) -> Path:
        """Mounts with `--foreground`; returns the mount point when it is mounted."""
        self._let_in()
        command = self.namespace.command("mount.chordfs", source, str(self.point), "--foreground")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + seconds
        while not os.path.ismount(self.point):
            if self._process.poll() is not None:
                raise RuntimeError(f"mount.chordfs {source} ended with {self._process.returncode}:\n{self.log()}")
            if time.monotonic() > end:
                raise TimeoutError(f"mount.chordfs {source} is not mounted after {seconds:.0f} s:\n{self.log()}")
            time.sleep(0.05)
        return self.point

    def mount_as_configured(self, source: str, seconds: float = 60.0) -> Path:
        """Mounts like a user, with `mount.chordfs /mnt/chord`: it takes the ring from /etc/chordfs.conf and continues
        in the background once it is mounted. /etc and /mnt are private to the workstation; the returned path leads to
        the files through that process's root."""
        self._let_in()
        desk = ["unshare", "--mount", "--propagation", "private", "sh", str(GUEST / "desk.sh"), str(self.folder), source]
        done = self.run(*desk, seconds=seconds)
        if done.returncode:
            raise RuntimeError(f"mount.chordfs /mnt/chord ended with {done.returncode}: {done.stderr}")
        (self._background,) = self.namespace.pids()
        return Path(f"/proc/{self._background}/root/mnt/chord")

    def unmount_as_configured(self) -> None:
        """Unmounts like a user, and waits for the end of the background process."""
        assert self._background is not None
        pid, self._background = self._background, None
        done = self.run("nsenter", f"--target={pid}", "--mount", "--", "umount", "/mnt/chord")
        if done.returncode:
            raise OSError(f"umount /mnt/chord: {done.stderr.strip()}")
        processes.wait_for_end(lambda: [pid], BACKGROUND_ENDS_SECONDS)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def run(self, *command: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Runs a program on this machine, such as `storage-node check`."""
        return subprocess.run(
            self.namespace.command(*command),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def unmount(self) -> None:
        if self._process is None:
            return
        done = subprocess.run(["umount", str(self.point)], capture_output=True, text=True, check=False)
        if done.returncode and os.path.ismount(self.point):
            raise OSError(f"umount {self.point}: {done.stderr.strip()}")
        self._process.wait(60)
        self._process = None

    def close(self) -> None:
        """Removes the mount, in any state."""
        if self._process is not None and self._process.poll() is None:
            pid = self._process.pid
            processes.send(pid, signal.SIGKILL)
            self._process.wait()
        subprocess.run(["umount", "-l", str(self.point)], stderr=subprocess.DEVNULL, check=False)
        self.namespace.close()
