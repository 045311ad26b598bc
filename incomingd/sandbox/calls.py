"""The system calls of each profile. Rules:

* What check workers may do is listed; what the operator's programs may not do is listed.
* The names are those of all of Debian's architectures; a machine takes those that it has.
"""

import errno
import os
import socket
from collections.abc import Iterator

from incomingd.sandbox.seccomp import Argument, Call


def _named(names: str, result: int = errno.EPERM) -> Iterator[Call]:
    """Calls by their names; ``name/453`` has the number for a libseccomp that does not know it."""
    for word in names.split():
        name, _, number = word.partition("/")
        yield Call(name=name, number=int(number) if number else None, result=result)


def _opening(value: int, mask: int) -> Iterator[Call]:
    """open(2), if these of its flags are so."""
    for name, index in (("open", 1), ("openat", 2)):
        yield Call(name=name, arguments=(Argument(index=index, value=value, mask=mask),))


#: prctl(2): what the C library and the interpreter ask for, and nothing that reaches another process.
_PRCTL = (1, 3, 4, 15, 16, 23, 38, 39, 0x53564D41)
#: ioctl(2): TCGETS, FIONBIO, FIONREAD, FIOCLEX.
_IOCTL = (0x5401, 0x5421, 0x541B, 0x5451)
#: CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET, and which argument of clone(2) they are in.
_NAMESPACES = tuple(1 << bit for bit in (17, 25, 26, 27, 28, 29, 30))
_CLONE_FLAGS = 1 if os.uname().machine.startswith("s390") else 0
#: TIOCSTI and TIOCLINUX type into a terminal.
_TYPING = (0x5412, 0x541C)
_DATAGRAM, _TYPE = 2, 0xF
#: More than Linux has (AF_MAX, linux/socket.h, is 46 in Linux 6.12).
_FAMILIES = 64

#: Reading, waiting, and starting gpgv. Nothing that changes what has a name.
WORKER: tuple[Call, ...] = (
    *_named("""
        read readv pread64 preadv preadv2 write writev pwrite64 lseek _llseek close close_range
        fcntl fcntl64 dup dup2 dup3 pipe pipe2 poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64
        epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd2
        memfd_create ftruncate ftruncate64 fadvise64 fadvise64_64 arm_fadvise64_64 readahead
        stat stat64 lstat lstat64 fstat fstat64 newfstatat fstatat64 statx statfs statfs64 fstatfs fstatfs64
        access faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir umask
    """),
    *_named("""
        brk mmap mmap2 munmap mremap mprotect madvise futex futex_time64 membarrier rseq
        set_robust_list get_robust_list set_tid_address set_thread_area arch_prctl riscv_flush_icache riscv_hwprobe
        fork vfork execve exit exit_group wait4 waitid waitpid setsid
        getpid getppid gettid getpgrp getpgid getsid getuid getuid32 geteuid geteuid32 getgid getgid32 getegid
        getegid32 getgroups getgroups32 getresuid getresuid32 getresgid getresgid32
        getrlimit ugetrlimit setrlimit getrusage times sched_yield sched_getaffinity
        rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
        sigreturn sigaltstack restart_syscall alarm setitimer pause
        clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep clock_nanosleep_time64 nanosleep
        gettimeofday time getrandom uname sysinfo
    """),
    Call(name="clone", arguments=(Argument(index=_CLONE_FLAGS, value=0, mask=sum(_NAMESPACES)),)),
    # On the one socket that a worker has.
    *_named("recvfrom recvmsg recv send sendto sendmsg shutdown getsockname getpeername getsockopt setsockopt"),
    # To take more away.
    *_named("seccomp"),
    *_named("landlock_create_ruleset/444 landlock_add_rule/445 landlock_restrict_self/446"),
    *(Call(name="prctl", arguments=(Argument(index=0, value=option),)) for option in _PRCTL),
    *(Call(name="ioctl", arguments=(Argument(index=1, value=number),)) for number in _IOCTL),
    # Its own limits, and the signals of its own group: it has a session to itself.
    Call(name="prlimit64", arguments=(Argument(index=0, value=0),)),
    Call(name="kill", arguments=(Argument(index=0, value=0),)),
    *_opening(os.O_RDONLY, os.O_ACCMODE | os.O_CREAT | os.O_TRUNC),
)

#: Calls with the arguments that have to be 0, which is the caller itself: its limits, its turn on the processor and on
#: the disk. setpriority(2) and ioprio_set(2) say before whose they are: a process's, 0 and 1, a group's or a user's.
_OF_ONE_PROCESS = {
    "prlimit64": (0,),
    "setpriority": (0, 1),
    "ioprio_set": (1,),
    "sched_setaffinity": (0,),
    "sched_setattr": (0,),
    "sched_setparam": (0,),
    "sched_setscheduler": (0,),
}
#: What no program that looks at packages needs, however it is written.
_NEVER: tuple[Call, ...] = (
    *_named("""
        ptrace process_vm_readv process_vm_writev process_madvise process_mrelease/448 pidfd_getfd kcmp
        perf_event_open bpf userfaultfd io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl
        mount umount umount2 pivot_root chroot move_mount open_tree open_tree_attr/467 fsopen fsconfig fsmount fspick
        mount_setattr/442 setns unshare swapon swapoff quotactl quotactl_fd/443 acct
        open_by_handle_at name_to_handle_at fanotify_init fanotify_mark
        init_module finit_module delete_module kexec_load kexec_file_load reboot syslog iopl ioperm
        settimeofday clock_settime clock_settime64 clock_adjtime clock_adjtime64 adjtimex stime
        sethostname setdomainname vhangup lookup_dcookie nfsservctl personality
    """),
    *(Call(name="clone", arguments=(Argument(index=_CLONE_FLAGS, value=flag, mask=flag),)) for flag in _NAMESPACES),
    # Their flags are behind a pointer. Without them the C library uses clone and openat.
    *_named("clone3/435 openat2/437", errno.ENOSYS),
    # Another process of the same user.
    *(
        Call(name=name, arguments=(Argument(index=index, value=0, differs=True),))
        for name, indexes in _OF_ONE_PROCESS.items()
        for index in indexes
    ),
    *(Call(name="ioctl", arguments=(Argument(index=1, value=number),)) for number in _TYPING),
    # Landlock has no rule for these. They end well and do nothing.
    *_named("chmod fchmod fchmodat fchmodat2/452 chown chown32 fchown fchown32 lchown lchown32 fchownat", 0),
    *_named("utime utimes futimesat utimensat utimensat_time64", 0),
    *_named(
        """
        setxattr lsetxattr fsetxattr setxattrat/463 removexattr lremovexattr fremovexattr removexattrat/466
        file_setattr/469
        """,
        errno.EOPNOTSUPP,
    ),
)
#: No socket. What remains is pairs that have only each other: a datagram's sender may name any receiver.
_SOCKETS: tuple[Call, ...] = (
    *_named("socket connect bind", errno.EAFNOSUPPORT),
    Call(name="socketpair", arguments=(Argument(index=1, value=_DATAGRAM, mask=_TYPE),), result=errno.EAFNOSUPPORT),
)

PROGRAM: tuple[Call, ...] = (*_NEVER, *_SOCKETS)
#: What is started in a session stays in it, and ends when that is killed.
LEAVING_SESSION: tuple[Call, ...] = tuple(_named("setsid setpgid"))
#: Of System V and of mq_overview(7): what has a name for other processes, and outlives this one. fakeroot needs it.
_SHARED_MEMORY: tuple[Call, ...] = tuple(_named("shmget shmat msgget semget ipc mq_open"))
#: What reads an import's packages. If a server has them, the network remains, and no way to this machine's sockets:
#: of all families only AF_INET and AF_INET6.
READER: tuple[Call, ...] = (*PROGRAM, *LEAVING_SESSION, *_SHARED_MEMORY)
READER_FROM_SERVER: tuple[Call, ...] = (
    *_NEVER,
    *LEAVING_SESSION,
    *_SHARED_MEMORY,
    *(
        Call(name="socket", arguments=(Argument(index=0, value=family),), result=errno.EAFNOSUPPORT)
        for family in range(_FAMILIES)
        if family not in (socket.AF_INET, socket.AF_INET6)
    ),
    *_named("socketpair bind", errno.EAFNOSUPPORT),
)

#: Besides, if landlock cannot forbid to truncate. A file that is opened for writing is landlock's in any case.
TRUNCATING: tuple[Call, ...] = (
    *_named("truncate truncate64"),
    *_opening(os.O_RDONLY | os.O_TRUNC, os.O_ACCMODE | os.O_TRUNC),
)
