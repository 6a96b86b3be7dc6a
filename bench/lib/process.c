#include "bench/process.h"
#include "bench/bench.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGUMENTS_MAX 62

[[gnu::noreturn]] static void
become(const char *const *argv, const char *ready_flag, int ready, int log, pid_t parent)
{
    char flag[64];
    const char *arguments[ARGUMENTS_MAX + 2];
    size_t count = 0;
    while (argv[count] && count < ARGUMENTS_MAX) {
        arguments[count] = argv[count];
        count++;
    }
    if (ready_flag) {
        snprintf(flag, sizeof flag, "%s%d", ready_flag, ready);
        arguments[count++] = flag;
        fcntl(ready, F_SETFD, 0);
    }
    arguments[count] = NULL;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        _exit(127);
    execvp(arguments[0], (char *const *)(uintptr_t)arguments);
    dprintf(2, "cannot start '%s': %s\n", arguments[0], strerror(errno));
    _exit(127);
}

void
weir_child_start(const char *const *argv, const char *ready_flag, const char *log_path,
                 struct weir_child *out)
{
    int ends[2] = {-1, -1};
    if (ready_flag && pipe2(ends, O_CLOEXEC))
        weir_bench_die("cannot make a pipe: %s", strerror(errno));
    int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0)
        weir_bench_die("cannot write '%s': %s", log_path, strerror(errno));
    pid_t self = getpid(), pid = fork();
    if (pid < 0)
        weir_bench_die("cannot start '%s': %s", argv[0], strerror(errno));
    if (pid == 0)
        become(argv, ready_flag, ends[1], log, self);
    close(log);
    if (ready_flag)
        close(ends[1]);
    *out = (struct weir_child){.pid = pid, .ready = ends[0]};
}

void
weir_child_wait_ready(struct weir_child *child, char *line, size_t size)
{
    size_t len = 0;
    while (len + 1 < size && !memchr(line, '\n', len)) {
        struct pollfd p = {.fd = child->ready, .events = POLLIN};
        if (poll(&p, 1, 60000) != 1)
            weir_bench_die("process %d is not ready after 60 s", (int)child->pid);
        ssize_t n = read(child->ready, line + len, size - 1 - len);
        if (n <= 0)
            weir_bench_die("process %d ended before it was ready; its log is kept beside the data",
                           (int)child->pid);
        len += (size_t)n;
    }
    line[len] = '\0';
    line[strcspn(line, "\n")] = '\0';
    close(child->ready);
    child->ready = -1;
}

void
weir_child_end(struct weir_child *child, int signal)
{
    if (child->pid <= 0)
        return;
    int handle = (int)syscall(SYS_pidfd_open, child->pid, 0);
    kill(child->pid, signal);
    struct pollfd p = {.fd = handle, .events = POLLIN};
    if (handle < 0 || poll(&p, 1, 30000) != 1)
        kill(child->pid, SIGKILL);
    while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (handle >= 0)
        close(handle);
    if (child->ready >= 0)
        close(child->ready);
    *child = (struct weir_child){.ready = -1};
}

double
weir_child_cpu_s(const struct weir_child *child)
{
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(child->pid, &clock) || clock_gettime(clock, &used))
        weir_bench_die("process %d is gone", (int)child->pid);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

uint64_t
weir_child_rss(const struct weir_child *child)
{
    char path[64];
    unsigned long long size, resident;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)child->pid);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%llu %llu", &size, &resident) != 2)
        weir_bench_die("process %d is gone", (int)child->pid);
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}
