"""A disk whose power can fail: ext4 in a file, shut down without its journal being written. Only root can."""

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


def are_there():
    """Whether this machine lets us."""
    return os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None


class Disk:
    """ext4 in a file, whose power can fail."""

    def __init__(self):
        self.folder = tempfile.mkdtemp()
        self.image, self.mount = os.path.join(self.folder, "image"), os.path.join(self.folder, "disk")
        os.mkdir(self.mount)
        with open(self.image, "wb") as image:
            image.truncate(1 << 30)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        self.attach()

    def attach(self):
        subprocess.run(["mount", "-o", "loop", self.image, self.mount], check=True)

    def detach(self):
        for _ in range(50):
            if subprocess.run(["umount", self.mount], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit(f"{self.mount} cannot be unmounted")

    def lose_power(self):
        """What was not flushed is gone. The processes that use it must end before it is unmounted."""
        handle = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        os.close(handle)

    def fail(self, kill):
        """Without power, and with it again."""
        self.lose_power()
        kill()
        self.detach()
        self.attach()

    def remove(self):
        self.detach()
        shutil.rmtree(self.folder)
