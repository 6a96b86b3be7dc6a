#include "main/daemon.h"
#include "base/assert.h"
#include "main/notify.h"
#include "native/native.h"
#include "service/service.h"
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

/* Peers get this part of the drain's time to leave by themselves, once all they sent is on disk. */
#define LEAVE_PART 10
#define LEAVE_STEP_MS 20

struct daemon {
    const struct weir_command_line *line;
    struct weir_settings *settings;
    struct weir_program_log *log;
    struct weir_sys sys;
    struct weir_service *service;
    struct weir_native *native;
    int signals, drained; /* signalfd; eventfd that the drain rings */
};

/* ---- opening ---- */

static void
log_of_service(void *arg, int level, const char *text)
{
    weir_program_log_write(arg, level, text, NULL, 0);
}

static uint32_t
processors(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return count < 1 ? 1 : count > (int)WEIR_OWNERS_MAX ? WEIR_OWNERS_MAX : (uint32_t)count;
}

/* Every connection is a descriptor: take what the system gives us. */
static void
raise_descriptors(const struct weir_settings *s, struct weir_program_log *log)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit);
    uint64_t connections = weir_setting_number(s, WEIR_SETTING_MAX_CONNECTIONS);
    if (limit.rlim_cur < connections + 256)
        weir_program_log_printf(
            log, WEIR_WARNING, "the system allows %llu open files, too few for %llu connections",
            (unsigned long long)limit.rlim_cur, (unsigned long long)connections);
}

/* Buffers that matter have pools of their own; what is left is small, and one arena per thread
 * would cost more memory than it saves time. */
static void
tune_malloc(void)
{
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 256 * 1024);
    mallopt(M_TRIM_THRESHOLD, 512 * 1024);
}

/* Code is clean pages of files: those that only the start needed go, the others come back with a
 * fault that needs no disk. */
static int
let_go_of_code(struct dl_phdr_info *object, size_t size, void *arg)
{
    (void)size, (void)arg;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || segment->p_flags != (PF_R | PF_X))
            continue;
        uintptr_t first = (object->dlpi_addr + segment->p_vaddr) & ~(page - 1);
        uintptr_t limit = object->dlpi_addr + segment->p_vaddr + segment->p_memsz;
        (void)!madvise((void *)first, limit - first, MADV_DONTNEED);
    }
    return 0;
}

static void
let_go_of_start(void)
{
    malloc_trim(0);
    dl_iterate_phdr(let_go_of_code, NULL);
}

/* Before any thread starts: they all inherit the mask, so signals come to the descriptor alone. */
static int
open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static enum weir_status
open_service(struct daemon *d, struct weir_error *err)
{
    const struct weir_settings *s = d->settings;
    uint32_t owners = (uint32_t)weir_setting_number(s, WEIR_SETTING_OWNERS);
    struct weir_service_config config = {
        .sys = &d->sys,
        .owners = owners ? owners : processors(),
        .segment_bytes = weir_setting_number(s, WEIR_SETTING_SEGMENT_SIZE),
        .prewrite_bytes = weir_setting_number(s, WEIR_SETTING_PREWRITE),
        .group_bytes_max = weir_setting_number(s, WEIR_SETTING_GROUP_SIZE),
        .queue_bytes_max = weir_setting_number(s, WEIR_SETTING_QUEUE_SIZE),
        .cache_bytes_max = weir_setting_number(s, WEIR_SETTING_CACHE_SIZE),
        .durability = (enum weir_durability)weir_setting_number(s, WEIR_SETTING_DURABILITY),
        .interval_ms = weir_setting_number(s, WEIR_SETTING_DURABILITY_INTERVAL),
        .producer_expiry_ms = weir_setting_number(s, WEIR_SETTING_PRODUCER_EXPIRY),
        .default_retention_ms = weir_setting_number(s, WEIR_SETTING_DEFAULT_RETENTION),
        .log = log_of_service,
        .log_arg = d->log,
    };
    static_assert(WEIR_DURABILITY_SYNC == 0 && WEIR_DURABILITY_INTERVAL == 1,
                  "the order of the words of 'durability'");
    return weir_service_open(&config, &d->service, err);
}

static enum weir_status
open_native(struct daemon *d, struct weir_error *err)
{
    const struct weir_settings *s = d->settings;
    uint32_t heartbeat_ms = (uint32_t)weir_setting_number(s, WEIR_SETTING_HEARTBEAT);
    const char *certificate = weir_setting_text(s, WEIR_SETTING_TLS_CERTIFICATE);
    const char *key = weir_setting_text(s, WEIR_SETTING_TLS_KEY);
    struct weir_native_options options = {
        .urls = s->url,
        .url_count = s->url_count,
        .tls_certificate = certificate[0] ? certificate : NULL,
        .tls_key = key[0] ? key : NULL,
        .broker = "weir-broker " WEIR_VERSION,
        .connections_max = (uint32_t)weir_setting_number(s, WEIR_SETTING_MAX_CONNECTIONS),
        .heartbeat_ms = heartbeat_ms,
        .dead_after_ms = 3 * heartbeat_ms,
    };
    return weir_native_open(d->service, &options, &d->native, err);
}

static enum weir_status
write_all(int fd, const struct weir_text *text)
{
    for (size_t at = 0; at < text->len;) {
        ssize_t n = write(fd, text->data + at, text->len - at);
        if (n < 0 && errno != EINTR)
            return weir_status_from_errno(errno);
        at += n > 0 ? (size_t)n : 0;
    }
    return WEIR_OK;
}

/* Whoever looks at the file finds all of it or nothing. */
static enum weir_status
write_ready_file(const char *path, const struct weir_text *text)
{
    struct weir_text other = {0};
    weir_text_printf(&other, "%s.new", path);
    FILE *file = other.failed ? NULL : fopen(other.data, "we");
    enum weir_status st = file ? write_all(fileno(file), text) : WEIR_IO;
    if (file)
        fclose(file);
    if (!st && rename(other.data, path))
        st = weir_status_from_errno(errno);
    weir_text_fini(&other);
    return st;
}

static enum weir_status
say_ready(struct daemon *d, struct weir_error *err)
{
    struct weir_text lines = {0};
    for (size_t i = 0; i < weir_native_address_count(d->native); i++)
        weir_text_printf(&lines, "%s\n", weir_native_address(d->native, i));
    enum weir_status st = WEIR_OK;
    if (lines.failed)
        st = weir_fail(err, WEIR_NO_MEMORY, "out of memory");
    if (!st && d->line->ready_file && (st = write_ready_file(d->line->ready_file, &lines)))
        (void)!weir_fail(err, st, "cannot write '%s': %s", d->line->ready_file,
                         weir_status_text(st));
    if (!st && d->line->ready_fd >= 0) {
        if ((st = write_all(d->line->ready_fd, &lines)))
            (void)!weir_fail(err, st, "cannot write to descriptor %d: %s", d->line->ready_fd,
                             weir_status_text(st));
        close(d->line->ready_fd);
    }
    if (!st) {
        lines.data[lines.len - 1] = '\0';
        for (char *c = lines.data; *c; c++)
            *c = *c == '\n' ? ' ' : *c;
        struct weir_log_field fields[] = {
            {"address", lines.data},
            {"data", weir_setting_text(d->settings, WEIR_SETTING_DATA)},
            {"data_id", weir_service_data_id(d->service)},
        };
        weir_program_log_write(d->log, WEIR_INFO, "ready", fields, 3);
        weir_notify(getenv("NOTIFY_SOCKET"), "READY=1\nSTATUS=ready");
    }
    weir_text_fini(&lines);
    return st;
}

static enum weir_status
open_all(struct daemon *d, struct weir_error *err)
{
    const char *data = weir_setting_text(d->settings, WEIR_SETTING_DATA);
    unsigned workers = (unsigned)weir_setting_number(d->settings, WEIR_SETTING_WORKERS);
    enum weir_status st = weir_fs_posix(data, &d->sys.fs, err);
    if (!st && (st = weir_pool_new("worker", workers, &d->sys.pool)))
        (void)!weir_fail(err, st, "cannot start %u workers: %s", workers, weir_status_text(st));
    if (!st && (st = open_service(d, err)))
        (void)!weir_fail_in(err, st, "cannot open '%s'", data);
    if (!st)
        st = open_native(d, err);
    if (!st)
        st = say_ready(d, err);
    return st;
}

static void
close_all(struct daemon *d)
{
    weir_native_close(d->native);
    weir_service_close(d->service);
    if (d->sys.pool)
        weir_pool_free(d->sys.pool);
    if (d->sys.fs)
        weir_fs_posix_free(d->sys.fs);
}

/* ---- signals ---- */

void
weir_daemon_apply_log(const struct weir_settings *settings, struct weir_program_log *log)
{
    static const int levels[] = {WEIR_ERROR, WEIR_WARNING, WEIR_INFO, WEIR_DEBUG};
    atomic_store(&log->level, levels[weir_setting_number(settings, WEIR_SETTING_LOG_LEVEL)]);
    atomic_store(&log->format, (int)weir_setting_number(settings, WEIR_SETTING_LOG_FORMAT));
}

static void
reload(struct daemon *d)
{
    char state[96];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
    weir_notify(getenv("NOTIFY_SOCKET"), state);

    struct weir_settings fresh = {0};
    struct weir_error err = {0};
    if (weir_settings_load(d->line, &fresh, &err)) {
        weir_program_log_printf(d->log, WEIR_ERROR, "settings stay as they are: %s", err.text);
    } else {
        unsigned changed = 0;
        for (int i = 0; i < WEIR_SETTING_COUNT; i++) {
            enum weir_setting_id id = (enum weir_setting_id)i;
            const char *was = weir_setting_text(d->settings, id);
            const char *is = weir_setting_text(&fresh, id);
            if (!strcmp(was, is))
                continue;
            changed++;
            bool now_in_effect = weir_setting_about[id].reloadable;
            struct weir_log_field fields[] = {
                {"setting", weir_setting_about[id].name}, {"from", was}, {"to", is}};
            weir_program_log_write(d->log, now_in_effect ? WEIR_INFO : WEIR_WARNING,
                                   now_in_effect ? "setting changed"
                                                 : "setting changed, takes effect at a restart",
                                   fields, 3);
        }
        weir_daemon_apply_log(&fresh, d->log);
        weir_settings_fini(d->settings);
        *d->settings = fresh;
        weir_program_log_printf(d->log, WEIR_INFO, "settings read again, %u changed", changed);
    }
    weir_notify(getenv("NOTIFY_SOCKET"), "READY=1");
}

static uint64_t
now_ms(void)
{
    return weir_mono_us(weir_clock_system()) / 1000;
}

/* The next signal; 0 when `other` (or -1) became readable or the time is up. */
static int
wait_signal(struct daemon *d, int other, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = d->signals, .events = POLLIN}, {.fd = other, .events = POLLIN}};
    if (poll(fds, 2, timeout_ms) < 0)
        return 0;
    struct signalfd_siginfo info;
    if (!(fds[0].revents & POLLIN) || read(d->signals, &info, sizeof info) != sizeof info)
        return 0;
    return (int)info.ssi_signo;
}

static void
on_drained(void *arg)
{
    const struct daemon *d = arg;
    uint64_t one = 1;
    (void)!write(d->drained, &one, sizeof one);
}

static bool
is_drained(const struct daemon *d)
{
    uint64_t count;
    return read(d->drained, &count, sizeof count) == sizeof count;
}

/* False: told to exit at once, or out of time. */
static bool
drain(struct daemon *d, int signo)
{
    weir_program_log_printf(d->log, WEIR_INFO, "draining on %s, %u connections",
                            signo == SIGINT ? "SIGINT" : "SIGTERM",
                            weir_native_connections(d->native));
    weir_notify(getenv("NOTIFY_SOCKET"), "STOPPING=1\nSTATUS=draining");
    uint64_t started = now_ms(), drained_at = 0;
    uint64_t most = weir_setting_number(d->settings, WEIR_SETTING_DRAIN_TIMEOUT);
    weir_native_drain(d->native);
    weir_service_drain(d->service, on_drained, d);
    for (;;) {
        uint64_t now = now_ms();
        if (!drained_at && is_drained(d))
            drained_at = now;
        if (drained_at &&
            (weir_native_connections(d->native) == 0 || now - drained_at > most / LEAVE_PART))
            return true;
        if (now - started > most) {
            weir_program_log_printf(d->log, WEIR_ERROR, "not drained after %llu ms",
                                    (unsigned long long)most);
            return drained_at != 0;
        }
        int timeout_ms = drained_at ? LEAVE_STEP_MS : (int)(most - (now - started)) + 1;
        int again = wait_signal(d, drained_at ? -1 : d->drained, timeout_ms);
        if (again == SIGTERM || again == SIGINT) {
            weir_program_log_write(d->log, WEIR_WARNING, "second signal, exit at once", NULL, 0);
            return false;
        }
    }
}

static enum weir_exit
serve(struct daemon *d)
{
    for (;;) {
        int signo = wait_signal(d, -1, -1);
        if (signo == SIGHUP)
            reload(d);
        else if (signo)
            return drain(d, signo) ? WEIR_EXIT_STOPPED : WEIR_EXIT_FORCED;
    }
}

enum weir_exit
weir_daemon_run(const struct weir_command_line *line, struct weir_settings *settings,
                struct weir_program_log *log)
{
    struct daemon d = {
        .line = line,
        .settings = settings,
        .log = log,
        .sys = {.clock = weir_clock_system(), .threads = true},
        .drained = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
    };
    tune_malloc();
    raise_descriptors(settings, log);
    weir_random_bytes(&d.sys.seed, sizeof d.sys.seed);
    d.signals = open_signals();
    if (d.drained < 0 || d.signals < 0) {
        weir_program_log_printf(log, WEIR_ERROR, "cannot wait for signals: %s", strerror(errno));
        return WEIR_EXIT_FAILED;
    }
    weir_program_log_write(log, WEIR_INFO, "weir-broker " WEIR_VERSION " starting", NULL, 0);

    struct weir_error err = {0};
    enum weir_exit status;
    enum weir_status st = open_all(&d, &err);
    if (st) {
        weir_program_log_write(log, WEIR_ERROR, err.text, NULL, 0);
        status = st == WEIR_BUSY && !d.service ? WEIR_EXIT_IN_USE : WEIR_EXIT_FAILED;
    } else {
        let_go_of_start();
        status = serve(&d);
    }
    if (status == WEIR_EXIT_FORCED)
        _exit(status); /* what is in flight may never come to an end */
    close_all(&d);
    close(d.signals);
    close(d.drained);
    if (status == WEIR_EXIT_STOPPED)
        weir_program_log_write(log, WEIR_INFO, "stopped", NULL, 0);
    return status;
}
