"""The system calls that a program of a model may not make, as a filter for the kernel (seccomp, a program in classic BPF).

Namespaces and missing capabilities already stop most of these. The filter takes away the parts of the kernel that have been the way out of
namespaces before, and those that reach around them: vsock is in no network namespace, memfd and System V memory are in no tmpfs.
Sources: seccomp(2); Documentation/userspace-api/seccomp_filter.rst and <linux/audit.h> of Linux; Docker's default profile.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterator
from typing import NamedTuple

# Instructions of classic BPF (<linux/bpf_common.h>), and what a filter returns (<linux/seccomp.h>).
LOAD, JUMP_EQUAL, JUMP_ABOVE, JUMP_BITS, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
ALLOW, DENY, KILL = 0x7FFF0000, 0x00050000, 0x80000000
# Offsets in struct seccomp_data, of little-endian machines.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16

# Flags of clone(2) that make a namespace: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
NAMESPACES = 0x7E020000
SOCKETS = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
PERSONALITIES = (0, 0xFFFFFFFF)  # PER_LINUX, and the question which one is set
MAP_SHARED, MAP_ANONYMOUS = 0x01, 0x20
# Calls whose first argument is a process; 0 is the calling one.
OF_A_PROCESS = ("prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler")
TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
NEWEST = 462  # the newest system call of this table, mseal of Linux 6.10; the numbers of x32 are above it, too


class Machine(NamedTuple):
    """Numbers of a processor architecture.

    Attributes:
        audit: its name in <linux/audit.h>.
        denied: system calls that are refused. checked: those that are refused with some arguments.
    """

    audit: int
    denied: dict[str, int]
    checked: dict[str, int]


# Since Linux 5.1, numbers are the same on all architectures.
COMMON = {
    **{"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427},
    **{"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442},
    **{"pidfd_getfd": 438, "process_madvise": 440, "quotactl_fd": 443, "memfd_secret": 447, "process_mrelease": 448},
    **{"statmount": 457, "listmount": 458, "lsm_get_self_attr": 459, "lsm_set_self_attr": 460, "lsm_list_modules": 461},
}
CLONE3 = 435

MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        {
            # other processes
            **{"ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "ioprio_set": 251},
            # namespaces and mounts
            **{"unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161},
            **{"name_to_handle_at": 303, "open_by_handle_at": 304, "fanotify_init": 300, "fanotify_mark": 301},
            # large interfaces of the kernel
            **{"bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249, "keyctl": 250},
            **{"migrate_pages": 256, "move_pages": 279, "mbind": 237},
            # the machine
            **{"init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "reboot": 169},
            **{"swapon": 167, "swapoff": 168, "acct": 163, "quotactl": 179, "syslog": 103, "vhangup": 153, "nfsservctl": 180},
            **{"settimeofday": 164, "clock_settime": 227, "clock_adjtime": 305, "adjtimex": 159, "sethostname": 170, "setdomainname": 171},
            # memory that belongs to no process and no tmpfs
            **{"memfd_create": 319, "shmget": 29, "shmat": 30, "shmctl": 31, "semget": 64, "semop": 65, "semctl": 66, "semtimedop": 220},
            **{"msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "mq_open": 240},
            # this processor alone, and what only old kernels have
            **{"iopl": 172, "ioperm": 173, "modify_ldt": 154, "uselib": 134, "ustat": 136, "sysfs": 139, "_sysctl": 156},
            **{"create_module": 174, "get_kernel_syms": 177, "query_module": 178, "lookup_dcookie": 212},
        },
        {"clone": 56, "personality": 135, "prlimit64": 302, "ioctl": 16, "socket": 41, "socketpair": 53}
        | {"mmap": 9, "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144}
        | {"sched_setaffinity": 203, "sched_setattr": 314},
    ),
    "aarch64": Machine(
        0xC00000B7,
        {
            **{"ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "ioprio_set": 30},
            **{"unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51},
            **{"name_to_handle_at": 264, "open_by_handle_at": 265, "fanotify_init": 262, "fanotify_mark": 263},
            **{"bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "add_key": 217, "request_key": 218, "keyctl": 219},
            **{"migrate_pages": 238, "move_pages": 239, "mbind": 235},
            **{"init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104, "kexec_file_load": 294, "reboot": 142},
            **{"swapon": 224, "swapoff": 225, "acct": 89, "quotactl": 60, "syslog": 116, "vhangup": 58, "nfsservctl": 42},
            **{"settimeofday": 170, "clock_settime": 112, "clock_adjtime": 266, "adjtimex": 171, "sethostname": 161, "setdomainname": 162},
            **{
                "memfd_create": 279,
                "shmget": 194,
                "shmctl": 195,
                "shmat": 196,
                "semget": 190,
                "semctl": 191,
                "semtimedop": 192,
                "semop": 193,
            },
            **{"msgget": 186, "msgctl": 187, "msgrcv": 188, "msgsnd": 189, "mq_open": 180},
            **{"lookup_dcookie": 18},
        },
        {"clone": 220, "personality": 92, "prlimit64": 261, "ioctl": 29, "socket": 198, "socketpair": 199}
        | {"mmap": 222, "setpriority": 140, "sched_setparam": 118, "sched_setscheduler": 119}
        | {"sched_setaffinity": 122, "sched_setattr": 274},
    ),
}


def machine() -> Machine | None:
    """The numbers for this processor; `None` if they are not known."""
    return MACHINES.get(platform.machine())


def program(numbers: Machine) -> bytes:
    """The filter as bubblewrap takes it (`--seccomp`): an array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in _instructions(numbers))


Instruction = tuple[int, int, int, int]


def _instructions(numbers: Machine) -> Iterator[Instruction]:
    """Code, instructions to skip if true and if false, operand."""
    refuse, unknown = (RETURN, 0, 0, DENY | errno.EPERM), (RETURN, 0, 0, DENY | errno.ENOSYS)
    yield (LOAD, 0, 0, ARCHITECTURE)
    yield (JUMP_EQUAL, 1, 0, numbers.audit)
    yield (RETURN, 0, 0, KILL)
    yield (LOAD, 0, 0, NUMBER)
    # Newer system calls than this table's are as on an older kernel. So is clone3, whose flags lie in memory, where a filter cannot look.
    yield (JUMP_ABOVE, 0, 1, NEWEST)
    yield unknown
    yield (JUMP_EQUAL, 0, 1, CLONE3)
    yield unknown
    for number in sorted({**COMMON, **numbers.denied}.values()):
        yield (JUMP_EQUAL, 0, 1, number)
        yield refuse
    checked = numbers.checked
    yield from _unless(checked["clone"], [(LOAD, 0, 0, ARGUMENTS), (JUMP_BITS, 0, 1, NAMESPACES), refuse])
    for name in OF_A_PROCESS:  # of the calling process only: the supervisor has the same user
        yield from _unless(checked[name], [(LOAD, 0, 0, ARGUMENTS), (JUMP_EQUAL, 1, 0, 0), refuse])
    of_all = [step for offset in (0, 8) for step in ((LOAD, 0, 0, ARGUMENTS + offset), (JUMP_EQUAL, 1, 0, 0), refuse)]
    yield from _unless(checked["setpriority"], of_all)  # PRIO_PROCESS, and the calling one
    # Shared memory without a file stays when it is no longer mapped or resident, so that no process counts it.
    shared = [(JUMP_BITS, 0, 2, MAP_SHARED), (JUMP_BITS, 0, 1, MAP_ANONYMOUS), refuse]
    yield from _unless(checked["mmap"], [(LOAD, 0, 0, ARGUMENTS + 24), *shared])
    yield from _unless(checked["personality"], [(LOAD, 0, 0, ARGUMENTS), *_one_of(PERSONALITIES), refuse])
    for name in ("socket", "socketpair"):
        yield from _unless(checked[name], [(LOAD, 0, 0, ARGUMENTS), *_one_of(SOCKETS), refuse])
    denied = [step for request in TERMINAL for step in ((JUMP_EQUAL, 0, 1, request), refuse)]
    yield from _unless(checked["ioctl"], [(LOAD, 0, 0, ARGUMENTS + 8), *denied])
    yield (RETURN, 0, 0, ALLOW)


def _unless(number: int, steps: list[Instruction]) -> list[Instruction]:
    """`steps` for one system call, which is allowed if none of them returns. The kernel, too, reads the low half of these arguments."""
    return [(JUMP_EQUAL, 0, len(steps) + 1, number), *steps, (RETURN, 0, 0, ALLOW)]


def _one_of(values: tuple[int, ...]) -> list[Instruction]:
    """Skip the next instruction after these if the loaded word is one of `values`."""
    return [(JUMP_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
