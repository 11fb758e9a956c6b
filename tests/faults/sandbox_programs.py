"""Programs against the sandbox: attacks, and honest ones. An attack is written so that it runs to its end only if it succeeds.

Names in double braces are filled in: of the machine outside, what an attacker could know of it.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple


class Program(NamedTuple):
    """One program.

    Attributes:
        name: what it tries. text: its source. passes: the right verdict.
        slow: takes seconds, or fills memory. seconds: its time limit.
    """

    name: str
    text: str
    passes: bool = False
    slow: bool = False
    seconds: float = 5.0


def _attack(name: str, text: str, *, passes: bool = False, slow: bool = False, seconds: float = 5.0) -> Program:
    return Program(name, textwrap.dedent(text).strip() + "\n", passes, slow, seconds)


STOP = "os.kill(os.getpid(), signal.SIGSTOP)"
SYSCALL = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
def call(x86, arm, *arguments):
    number = {"x86_64": x86, "aarch64": arm}[platform.machine()]
    result = libc.syscall(number, *arguments)
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result
"""


def _calls(name: str, x86: int, arm: int, arguments: str) -> Program:
    return Program(name, f"{SYSCALL}\ncall({x86}, {arm}, {arguments})\n")


NETWORK = (
    _attack("a server on the host's loopback", "import socket\nsocket.create_connection(('127.0.0.1', {{port}}), 1).sendall(b'x')"),
    _attack("the same by IPv6", "import socket\nsocket.create_connection(('::1', {{port}}), 1).sendall(b'x')"),
    _attack("a datagram to the outside", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53))"),
    _attack("a name server", "import socket\nsocket.getaddrinfo('example.com', 80)"),
    _attack("a socket in the host's /tmp", "import socket\nsocket.socket(socket.AF_UNIX).connect('{{socket}}')"),
    _attack("an abstract socket of the host", "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0{{abstract}}')"),
    _attack(
        "every socket that lies anywhere",
        """
        import glob, os, socket, stat
        found = 0
        for root in ("/tmp", "/run", "/var", "/dev/shm"):
            for folder, _, files in os.walk(root):
                for file in files:
                    try:
                        socket.socket(socket.AF_UNIX).connect(os.path.join(folder, file))
                        found += 1
                    except OSError:
                        pass
        assert found
        """,
    ),
    _attack("vsock, which is in no namespace", "import socket\nsocket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)"),
    _attack("netlink", "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"),
    _attack("a raw packet socket", "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
)

FILES = (
    _attack("write into home", "open('{{home}}/{{marker}}', 'w').write('x')"),
    _attack("write into the host's /tmp", "open('{{folder}}/{{marker}}', 'w').write('x')"),
    _attack("write into the working directory of the run", "open('{{folder}}/cwd/{{marker}}', 'w').write('x')"),
    _attack("read a file of the host", "open('{{folder}}/secret').read()"),
    _attack("read /etc/shadow", "open('/etc/shadow').read()"),
    _attack("read /etc/passwd", "open('/etc/passwd').read()"),
    _attack("read keys", "import os, sys\nassert [name for name in os.listdir('{{home}}') if not sys.base_prefix.startswith('{{home}}/' + name)]"),
    _attack("write into the interpreter's packages", "import sysconfig\nopen(sysconfig.get_path('purelib') + '/{{marker}}.pth', 'w')"),
    _attack("write sitecustomize", "import sysconfig\nopen(sysconfig.get_path('stdlib') + '/sitecustomize.py', 'a')"),
    _attack("write into /usr", "open('/usr/{{marker}}', 'w')"),
    _attack("write into the root", "open('/{{marker}}', 'w')"),
    _attack("write into /dev", "open('/dev/{{marker}}', 'w')"),
    _attack("change the supervisor", "open('/supervisor.py', 'a')"),
    _attack("make the interpreter writable", "import os, sys\nos.chmod(sys.prefix, 0o777)"),
    _attack("a symlink out", "import os\nos.symlink('{{folder}}', 'out')\nopen('out/{{marker}}', 'w').write('x')"),
    _attack("a hard link out", "import os\nos.link('/usr/bin/env', '/tmp/env')"),
    _attack("upwards from the working directory", "import os\nassert 'secret' in os.listdir('/proc/self/cwd/../../' + '{{folder}}'.strip('/'))"),
    _attack("the root of process 1", "import os\nos.listdir('/proc/1/root/')"),
    _attack("memory of the machine", "open('/dev/mem', 'rb').read(1)"),
    _attack("memory of the kernel", "open('/dev/kmsg', 'w').write('x')"),
    _attack("a device node", "import os, stat\nos.mknod('/tmp/disk', 0o600 | stat.S_IFBLK, os.makedev(8, 0))\nopen('/tmp/disk', 'rb').read(1)"),
    _attack("the pattern of core dumps", "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh')"),
    _attack("the magic keys of the kernel", "open('/proc/sysrq-trigger', 'w').write('h')"),
    _attack("find the host's temporary folder through a mount", "assert '{{folder}}' in open('/proc/self/mountinfo').read()"),
    _attack("what another program left, first half", "open('/tmp/json.py', 'w').write('')\nopen('/dev/shm/left', 'w').write('')", passes=True),
    _attack("what another program left, second half", "import os\nassert os.path.exists('/tmp/json.py') or os.path.exists('/dev/shm/left')"),
    _attack("a module in the working directory of the run", "import planted_in_cwd"),
    _attack("a module in PYTHONPATH of the run", "import planted_in_path"),
    _attack("variables of the run", "import os\nassert 'COMPRESSLAB_SECRET' in os.environ or 'PYTHONPATH' in os.environ"),
    _attack("variables of process 1", "assert open('/proc/1/environ', 'rb').read()"),
    _attack("descriptors of process 1", "import os\nassert os.listdir('/proc/1/fd')"),
    _attack("a process of the host", "import os\nos.kill({{parent}}, 0)"),
    _attack("variables of a process of the host", "assert open('/proc/{{parent}}/environ').read()"),
    _attack("a group of processes of the host", "import os, signal\nos.killpg({{group}}, 0)"),
)

KERNEL = (
    _calls("a user namespace", 272, 97, "0x10000000"),
    _attack("a user namespace by clone", SYSCALL + "if call(56, 220, 0x10000011, 0, 0, 0, 0) == 0:\n    os._exit(0)\n"),
    _attack("a user namespace by clone3", SYSCALL + "a = (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, 17)\nif call(435, 435, a, 64) == 0:\n    os._exit(0)"),
    _calls("a mount", 165, 40, "b'none', b'/tmp', b'tmpfs', 0, None"),
    _calls("remount the root writable", 165, 40, "b'none', b'/', None, 0x1020, None"),
    _calls("unmount", 166, 39, "b'/tmp', 2"),
    _calls("a mount by the new calls", 430, 430, "b'tmpfs', 0"),
    _calls("pivot_root", 155, 41, "b'/tmp', b'/tmp'"),
    _attack("chroot and out of it", "import os\nos.mkdir('c')\nos.chroot('c')\n[os.chdir('..') for _ in range(20)]\nos.chroot('.')\nos.listdir('{{folder}}')"),
    _calls("the namespaces of process 1", 308, 268, "os.open('/proc/1/ns/mnt', os.O_RDONLY), 0"),
    _calls("ptrace of process 1", 101, 117, "16, 1, 0, 0"),
    _calls("ptrace of itself", 101, 117, "0, 0, 0, 0"),
    _calls("memory of process 1 by a system call", 310, 270, "1, 0, 0, 0, 0, 0"),
    _attack("memory of process 1", "open('/proc/1/mem', 'rb')"),
    _attack("a descriptor of process 1", SYSCALL + "p = call(434, 434, 1, 0)\ncall(438, 438, p, 2, 0)"),
    _calls("limits of process 1", 302, 261, "1, 7, (ctypes.c_uint64 * 2)(0, 0), None"),
    _calls("io_uring", 425, 425, "8, (ctypes.c_char * 120)()"),
    _calls("a key ring", 250, 219, "0, -3, 1"),
    _calls("a key", 248, 217, "b'user', b'k', b'v', 1, -3"),
    _calls("bpf", 321, 280, "0, (ctypes.c_char * 120)(), 120"),
    _calls("perf", 298, 241, "(ctypes.c_char * 120)(), 0, -1, -1, 0"),
    _calls("userfaultfd", 323, 282, "0"),
    _calls("memory that is in no tmpfs", 319, 279, "b'm', 0"),
    _calls("System V memory", 29, 194, "0, 2**20, 0o1600"),
    _calls("a file by its handle", 304, 265, "0, 0, 0"),
    _calls("addresses that are not random", 135, 92, "0x0040000"),
    _calls("a module of the kernel", 313, 273, "0, b'', 0"),
    _calls("another kernel", 246, 104, "0, 0, 0, 0"),
    _calls("the time", 227, 112, "0, (ctypes.c_uint64 * 2)(0, 0)"),
    _calls("the log of the kernel", 103, 116, "3, (ctypes.c_char * 120)(), 120"),
    _calls("a call newer than the filter", 500, 500, "0"),
    _attack("type into the terminal", "import fcntl, os\nfcntl.ioctl(os.open('/dev/tty', os.O_RDWR), 0x5412, b'x')"),
    _attack("type into any descriptor", "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')"),
    _attack("become root", "import os\nos.setuid(0)"),
    _attack("be root already", "import os\nassert os.geteuid() == 0 or 'CapEff:\\t0000000000000000' not in open('/proc/self/status').read()"),
    _attack(
        "a setuid program",
        """
        import glob, os, subprocess
        found = [f for f in glob.glob('/usr/bin/*') + glob.glob('/bin/*') if os.stat(f).st_mode & 0o4000]
        out = [subprocess.run([f, '-c', 'id'], capture_output=True, text=True, input='').stdout for f in found]
        assert any('uid=0' in o for o in out)
        """,
    ),
    _attack(
        "system calls of 32 bits",
        """
        import ctypes, mmap, platform
        assert platform.machine() == 'x86_64'
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(bytes.fromhex('b814000000cd80c3'))  # mov eax, 20 (getpid); int 0x80; ret
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        """,
    ),
    _attack("system calls of x32", SYSCALL + "assert platform.machine() == 'x86_64'\ncall(0x40000000 + 39, 0)"),
)

RESOURCES = (
    _attack(
        "a fork bomb",
        """
        import os, time
        count = 0
        while count < 64:
            if os.fork() == 0:
                time.sleep(60)
            count += 1
        """,
    ),
    _attack("a fork bomb that grows", "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass", slow=True, seconds=2),
    _attack("a bomb of threads", "import threading, time\nfor _ in range(64):\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"),
    _attack("memory in one process", "x = bytearray(3 * 2**30)"),
    _attack(
        "memory in many processes",
        """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                x = bytearray(300 * 2**20)
                time.sleep(60)
        time.sleep(3)
        """,
        slow=True,
    ),
    _attack("shared memory", "import mmap, time\nx = [mmap.mmap(-1, 2**28) for _ in range(8)]\n[m.write(bytes(2**28)) for m in x]", slow=True),
    _attack("fill /tmp", "for n in range(20):\n    open(f'/tmp/{n}', 'wb').write(bytes(2**23))"),
    _attack("fill /dev/shm", "for n in range(20):\n    open(f'/dev/shm/{n}', 'wb').write(bytes(2**23))"),
    _attack("many files", "import time\nfor n in range(100_000):\n    open(f'/tmp/{n}', 'w').close()\ntime.sleep(1)", slow=True),
    _attack("a large file", "open('/tmp/large', 'wb').write(bytes(2**26))"),
    _attack("many open files", "import os\nx = [os.open('/dev/null', 0) for _ in range(1000)]"),
    _attack("locked memory", "import ctypes\nb = ctypes.create_string_buffer(2**22)\nassert ctypes.CDLL(None).mlock(b, 2**22) == 0"),
    _attack("sleep", "import time\ntime.sleep(600)", slow=True, seconds=1),
    _attack("compute for ever", "while True: pass", slow=True, seconds=1),
    _attack("ignore all signals", "import signal\nfor n in range(1, 32):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n    except OSError:\n        pass\nwhile True: pass", slow=True, seconds=1),
    _attack("much output", "import sys\nfor _ in range(200):\n    print('x' * 10**6); print('x' * 10**6, file=sys.stderr)", passes=True),
    _attack("a core dump", "import os, resource\nresource.setrlimit(resource.RLIMIT_CORE, (2**30, 2**30))"),
    _attack("deep recursion", "import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    return [*map(lambda _: f(), [0])]\nf()"),
    _attack("raise the limits", "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (resource.RLIM_INFINITY,) * 2)"),
)

LEFT = (
    _attack(
        "a daemon",
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
        os.wait()
        """,
        passes=True,
    ),
    _attack("a child that writes later", "import os, time\nif os.fork() == 0:\n    time.sleep(1)\n    open('{{folder}}/{{marker}}', 'w').write('x')", passes=True),
    _attack("a command in the background", "import subprocess\nsubprocess.Popen(['sh', '-c', 'nohup sleep 600 &'], start_new_session=True)", passes=True),
    _attack("a thread that never ends", "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()", passes=True),
    _attack("files in the working directory", "for n in range(10):\n    open(f'{{marker}}-{n}', 'w').write('x')", passes=True),
)

VERDICT = (
    _attack("end early: os._exit", "import os\nos._exit(0)"),
    _attack("end early: sys.exit", "import sys\nsys.exit(0)"),
    _attack("end early: exit", "exit()"),
    _attack("end early: SystemExit", "raise SystemExit"),
    _attack("end early: KeyboardInterrupt", "raise KeyboardInterrupt"),
    _attack("end early: a signal", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
    _attack("end early: an alarm", "import os, signal, time\nsignal.signal(14, lambda *_: os._exit(0))\nsignal.alarm(1)\ntime.sleep(60)", slow=True),
    _attack("end early: another program", "import os\nos.execv('/bin/true', ['true'])"),
    _attack("end early: another program that stops", "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'import signal; signal.raise_signal(19)'])"),
    _attack("end early: the supervisor again", "import os, sys\nos.execv(sys.executable, [sys.executable, '-I', '/supervisor.py', '5', '1000000000', '0', '0'])"),
    _attack("end early: from a thread", "import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()\nassert False"),
    _attack("end early: by the kernel", SYSCALL + "call(231, 94, 0)"),
    _attack("end early: the main thread alone", "import ctypes\nctypes.CDLL(None).pthread_exit(0)", slow=True, seconds=2),
    _attack("end early: the parent of a child", "import os, time\nif os.fork():\n    os._exit(0)\ntime.sleep(1)"),
    _attack("the exit status of a pass", "import os\nos._exit(40)"),
    _attack("the exit status of a pass, in all processes", "import os\nos.fork()\nos.fork()\nos._exit(40)"),
    _attack("at exit", f"import atexit, os, signal\natexit.register(lambda: {STOP})\nassert False"),
    _attack("at exit, by the same call", "import atexit, signal\natexit.register(signal.raise_signal, signal.SIGSTOP)\nassert False"),
    _attack("in the hook of exceptions", f"import os, signal, sys\nsys.excepthook = lambda *_: {STOP}\nassert False"),
    _attack("in a destructor", f"import os, signal, sys\nclass A:\n    def __del__(self):\n        {STOP}\nx = A()\nassert False"),
    _attack("stop like the supervisor's own function", "import signal\nsignal.raise_signal(signal.SIGSTOP)\nassert False"),
    _attack("stop from deep inside", f"import os, signal\nsorted([0, 1], key=lambda _: {STOP})\nassert False"),
    _attack("stop in a signal handler", f"import os, signal\nsignal.signal(10, lambda *_: {STOP})\nsignal.raise_signal(10)\nassert False"),
    _attack("be stopped by a child", "import os, signal, time\nif os.fork() == 0:\n    os.kill(os.getppid(), 19)\n    os._exit(0)\ntime.sleep(1)\nassert False"),
    _attack("be stopped by a thread", "import os, signal, threading, time\nthreading.Thread(target=os.kill, args=(os.getpid(), 19)).start()\ntime.sleep(1)\nassert False"),
    _attack("be stopped and continued", "import os, time\np = os.getpid()\nif os.fork() == 0:\n    for _ in range(2000):\n        os.kill(p, 19); os.kill(p, 18)\n    os._exit(0)\ntime.sleep(1)\nassert False"),
    _attack("the frame that runs it: its stop", "import sys\nf = sys._getframe(1)\nf.f_locals['stop'](f.f_locals['number'])\nassert False"),
    _attack("the frame that runs it: its names", "import sys\nf = sys._getframe(1)\nf.f_locals['exec'] = print\nf.f_globals.update(PASSED=1, FAILED=40, BROKEN=40)\nassert False"),
    _attack("the frame that runs it: its line", "import sys\nf = sys._getframe(1)\ndef jump(*_):\n    f.f_lineno += 1\n    return jump\nf.f_trace = jump\nsys.settrace(jump)\nassert False"),
    _attack("replace all functions", "import builtins, os, signal, sys\nfor n in ('_exit', 'kill', 'getpid'):\n    setattr(os, n, lambda *_: 0)\nbuiltins.BaseException = builtins.AssertionError = ()\nbuiltins.exec = print\nassert 1 == 2"),
    _attack("an exception that is equal to everything", "class E(BaseException):\n    def __eq__(self, _): return True\n    def __hash__(self): return 0\n    def __bool__(self): return False\nraise E"),
    _attack("write a verdict to all descriptors", "import os\nfor n in range(3, 1000):\n    try:\n        os.write(n, b'40' * 16)\n    except OSError:\n        continue\n    break\nelse:\n    assert False"),
    _attack("find a descriptor that is not /dev/null", "import os\nseen = {os.readlink('/proc/self/fd/' + n) for n in os.listdir('/proc/self/fd') if int(n) < 3}\nassert seen != {'/dev/null'}"),
    _attack("copy what can be read to what can be written", "import os\nos.set_blocking(0, False)\ndata = b''.join(os.read(n, 100) for n in (0,))\nassert data"),
    _attack("find a token in the arguments", "import re\nassert re.search('[0-9a-f]{16}', open('/proc/1/cmdline').read() + open('/proc/self/cmdline').read())"),
    _attack("find the verdict's name in memory", "import gc, sys\nassert any(isinstance(o, dict) and 'token' in o and '__name__' not in o for o in gc.get_objects())"),
    _attack("kill the supervisor", "import os, signal, time\nfor n in (9, 15, 2, 3, 1, 6, 14):\n    os.kill(1, n)\ntime.sleep(0.2)\nassert False"),
    _attack("stop the supervisor", "import os, time\nos.kill(1, 19)\ntime.sleep(600)", slow=True, seconds=1),
    _attack("kill everything", "import os\nos.kill(-1, 9)\nassert False"),
    _attack("kill the own group", "import os\nos.killpg(0, 9)"),
    _attack("kill the parent", "import os\nassert os.getppid() != 1\nos.kill(os.getppid(), 9)"),
    _attack("a syntax error", "def add(a, b):\n    return a +"),
    _attack("a wrong answer", "assert 1 + 1 == 3"),
    _attack("bytes that are no text", "\x00\ud800"),
)

HONEST = (
    _attack("a right answer", "def add(a, b):\n    return a + b\nassert add(2, 3) == 5", passes=True),
    _attack("threads", "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(8) as pool:\n    assert sum(pool.map(abs, range(-50, 0))) == 1275", passes=True),
    _attack("another program", "import subprocess\nassert subprocess.run(['echo', 'here'], capture_output=True, text=True).stdout == 'here\\n'", passes=True),
    _attack("the interpreter again", "import subprocess, sys\nassert subprocess.check_output([sys.executable, '-c', 'print(1)']) == b'1\\n'", passes=True),
    _attack("two processes", "from multiprocessing import Pool\ndef f(x):\n    return x * x\nwith Pool(2) as pool:\n    assert pool.map(f, range(4)) == [0, 1, 4, 9]", passes=True),
    _attack("temporary files", "import tempfile\nwith tempfile.NamedTemporaryFile('w+') as f:\n    f.write('x'); f.seek(0); assert f.read() == 'x'", passes=True),
    _attack("200 MB", "x = bytearray(200 * 2**20)\nassert len(x) == 200 * 2**20", passes=True),
    _attack("3 s of computing", "import time\nwhile time.process_time() < 3: pass", passes=True, slow=True, seconds=30),
    _attack("classes of data and types", "from dataclasses import dataclass\nfrom typing import List, Optional\n@dataclass\nclass A:\n    x: Optional[List[int]] = None\nassert A([1]) == A([1])", passes=True),
    _attack("asyncio", "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    return 1\nassert asyncio.run(f()) == 1", passes=True),
    _attack("an alarm", "import signal\nsignal.alarm(60)\nsignal.alarm(0)", passes=True),
    _attack("unit tests", "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(1, 1)\nassert unittest.main(exit=False, argv=['x']).result.wasSuccessful()", passes=True),
    _attack("time zones, pickles, SQL", "import datetime, pickle, sqlite3\nd = datetime.datetime.now().astimezone()\nassert pickle.loads(pickle.dumps(d)) == d\nassert sqlite3.connect(':memory:').execute('select 1').fetchone() == (1,)", passes=True),
    _attack("recursion", "import sys\nsys.setrecursionlimit(5000)\ndef f(n):\n    return n and f(n - 1)\nassert f(4000) == 0", passes=True),
    _attack("files in its folder", "import json, os\nassert os.listdir() == []\njson.dump([1], open('a.json', 'w'))\nassert json.load(open('a.json')) == [1]", passes=True),
    _attack("a caught exit", "import sys\ntry:\n    sys.exit(0)\nexcept SystemExit:\n    pass", passes=True),
)
NUMPY = _attack("numpy", "import numpy as np\nassert float(np.ones((200, 200)).dot(np.ones(200)).sum()) == 40000", passes=True)

ATTACKS = (*NETWORK, *FILES, *KERNEL, *RESOURCES, *LEFT, *VERDICT)
