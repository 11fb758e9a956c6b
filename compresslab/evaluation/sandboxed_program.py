"""The process of a model's program (see `sandbox`). Arguments: the token to print at the end, seconds, bytes; stdin: the program."""

import ctypes
import os
import resource
import sys

NEW_USER, NEW_NETWORK, NOT_ISOLATED = 0x10000000, 0x40000000, 77

if __name__ == "__main__":
    token, seconds, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    program = sys.stdin.read()
    libc = ctypes.CDLL(None)
    # Root can unshare the network directly, other users only in a new user namespace.
    if libc.unshare(NEW_NETWORK) != 0 and libc.unshare(NEW_USER | NEW_NETWORK) != 0:
        os._exit(NOT_ISOLATED)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**24, 2**24))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    del sys.argv[1:]
    original_stdout = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # discards the output of the program
    try:
        exec(compile(program, "answer", "exec"), {"__name__": "__main__"})
    except BaseException:
        os._exit(1)
    os.write(original_stdout, token.encode())
    os._exit(0)
