/* The real weir-broker as its operator meets it: started on a fresh directory with a port of the
 * system's choice, asked by signals, read by its log. Every wait is for an event, with a deadline
 * far away. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DEADLINE_MS = 60000, FLAGS_MAX = 10 };

struct broker {
    pid_t pid;
    int ready, log; /* read ends */
    char address[4096];
    char text[1 << 16]; /* of the log, as far as it was read */
    size_t len, seen;
};

static char directory[] = "/tmp/weir-daemon-XXXXXX";
static char data_flag[80];

static void
setup(void)
{
    cr_assert(mkdtemp(directory));
    snprintf(data_flag, sizeof data_flag, "--data=%s/data", directory);
    signal(SIGPIPE, SIG_IGN);
}

static void
teardown(void)
{
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    cr_assert_eq(system(command), 0);
}

TestSuite(daemon, .init = setup, .fini = teardown, .timeout = 110);

static char *
in_directory(const char *name)
{
    static char path[4][256];
    static int turn;
    char *at = path[turn++ % 4];
    snprintf(at, 256, "%s/%s", directory, name);
    return at;
}

static void
write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    cr_assert(f);
    fputs(text, f);
    fclose(f);
}

/* Starts it; its log, and its standard output, go to b->log. */
static void
start(struct broker *b, const char *const *flags)
{
    memset(b, 0, sizeof *b);
    int ready[2], log[2];
    cr_assert_eq(pipe2(ready, O_CLOEXEC), 0);
    cr_assert_eq(pipe2(log, O_CLOEXEC), 0);
    const char *bin = getenv("WEIR_BIN_DIR");
    char program[512];
    snprintf(program, sizeof program, "%s/weir-broker", bin ? bin : "build/release/bin");
    char *argv[FLAGS_MAX + 3] = {program, (char[]){"--ready-fd=9"}};
    for (int i = 0; i < FLAGS_MAX && flags[i]; i++)
        argv[i + 2] = (char *)(uintptr_t)flags[i];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ready[1], 9);
    posix_spawn_file_actions_adddup2(&actions, log[1], 1);
    posix_spawn_file_actions_adddup2(&actions, log[1], 2);
    cr_assert_eq(posix_spawn(&b->pid, program, &actions, NULL, argv, environ), 0, "%s", program);
    posix_spawn_file_actions_destroy(&actions);
    close(ready[1]);
    close(log[1]);
    b->ready = ready[0];
    b->log = log[0];
}

static ssize_t
read_some(int fd, void *buf, size_t len)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, DEADLINE_MS), 1, "nothing came in time");
    ssize_t n = read(fd, buf, len);
    cr_assert_geq(n, 0);
    return n;
}

/* Reads the log until it has `text` behind what was found before. */
static void
expect_log(struct broker *b, const char *text)
{
    char *at;
    while (!(at = strstr(b->text + b->seen, text))) {
        ssize_t n = read_some(b->log, b->text + b->len, sizeof b->text - 1 - b->len);
        cr_assert_gt(n, 0, "the log ends without '%s':\n%s", text, b->text);
        b->len += (size_t)n;
        b->text[b->len] = '\0';
    }
    b->seen = (size_t)(at - b->text) + strlen(text);
}

static void
wait_ready(struct broker *b)
{
    size_t len = 0;
    ssize_t n;
    while ((n = read_some(b->ready, b->address + len, sizeof b->address - 1 - len)) > 0)
        len += (size_t)n;
    if (len == 0)
        expect_log(b, "the reason that it is not ready");
    cr_assert_eq(b->address[len - 1], '\n');
}

/* Its exit status; the log is read to its end. */
static int
wait_exit(struct broker *b)
{
    ssize_t n;
    while ((n = read_some(b->log, b->text + b->len, sizeof b->text - 1 - b->len)) > 0)
        b->len += (size_t)n;
    b->text[b->len] = '\0';
    int status;
    cr_assert_eq(waitpid(b->pid, &status, 0), b->pid);
    close(b->ready);
    close(b->log);
    cr_assert(WIFEXITED(status), "ended by signal %d:\n%s", WTERMSIG(status), b->text);
    return WEXITSTATUS(status);
}

static int
run(struct broker *b, const char *const *flags)
{
    start(b, flags);
    return wait_exit(b);
}

static void
stop(struct broker *b)
{
    kill(b->pid, SIGTERM);
    int status = wait_exit(b);
    cr_assert_eq(status, 0, "exit status %d:\n%s", status, b->text);
}

#define FLAGS(...) ((const char *const[FLAGS_MAX]){data_flag, __VA_ARGS__})
#define ANY_PORT "--listen=tcp://127.0.0.1:0"

/* A peer that has shown the door's first bytes and read its answer: it counts as connected. */
static int
connect_to(const char *address)
{
    unsigned port;
    cr_assert_eq(sscanf(address, "tcp://127.0.0.1:%u", &port), 1, "%s", address);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    static const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x10, 0, 0};
    uint8_t answer[8];
    cr_assert_eq(write(fd, hello, sizeof hello), 8);
    for (size_t len = 0; len < sizeof answer;) {
        ssize_t n = read_some(fd, answer + len, sizeof answer - len);
        cr_assert_gt(n, 0);
        len += (size_t)n;
    }
    cr_assert_eq(memcmp(answer, hello, sizeof hello), 0);
    return fd;
}

/* Started, ready with its real address, answering there, and gone on SIGTERM with status 0; and
 * again on the same directory, which keeps its identity. */
Test(daemon, starts_serves_and_stops)
{
    char id[64] = "";
    for (int round = 0; round < 2; round++) {
        struct broker b;
        start(&b, FLAGS(ANY_PORT));
        wait_ready(&b);
        int fd = connect_to(b.address);
        close(fd);
        expect_log(&b, " ready ");
        expect_log(&b, "data_id=");
        char now[64];
        snprintf(now, sizeof now, "%.32s", b.text + b.seen);
        if (round == 0)
            strcpy(id, now);
        cr_assert_str_eq(id, now);
        stop(&b);
        expect_log(&b, "draining on SIGTERM");
        expect_log(&b, "stopped");
    }
}

/* SIGINT does the same. */
Test(daemon, stops_on_interrupt)
{
    struct broker b;
    start(&b, FLAGS(ANY_PORT));
    wait_ready(&b);
    kill(b.pid, SIGINT);
    cr_assert_eq(wait_exit(&b), 0, "%s", b.text);
    expect_log(&b, "draining on SIGINT");
}

/* A second broker on the same directory is refused, and says who has it; the first one does not
 * mind. */
Test(daemon, refuses_a_directory_in_use)
{
    struct broker b, other;
    start(&b, FLAGS(ANY_PORT));
    wait_ready(&b);
    int status = run(&other, FLAGS(ANY_PORT));
    cr_assert_eq(status, 3, "exit status %d:\n%s", status, other.text);
    char pid[32];
    snprintf(pid, sizeof pid, "%d", (int)b.pid);
    cr_assert(strstr(other.text, pid), "'%s' must name %s", other.text, pid);
    close(connect_to(b.address));
    stop(&b);
}

/* An address in use is a failure with its name, and leaves the directory free. */
Test(daemon, refuses_an_address_in_use)
{
    struct broker b, other;
    start(&b, FLAGS(ANY_PORT));
    wait_ready(&b);
    char listen_flag[128], data[128];
    snprintf(listen_flag, sizeof listen_flag, "--listen=%.*s", (int)strcspn(b.address, "\n"),
             b.address);
    snprintf(data, sizeof data, "--data=%s", in_directory("other"));
    int status = run(&other, (const char *const[FLAGS_MAX]){data, listen_flag});
    cr_assert_eq(status, 1, "exit status %d:\n%s", status, other.text);
    cr_assert(strstr(other.text, listen_flag + 9), "%s", other.text);
    stop(&b);
    start(&b, (const char *const[FLAGS_MAX]){data, ANY_PORT});
    wait_ready(&b);
    stop(&b);
}

/* Several doors at once; the file of addresses appears whole. */
Test(daemon, writes_its_addresses_to_a_file)
{
    struct broker b;
    char ipc[200], ready[200];
    snprintf(ipc, sizeof ipc, "--listen=tcp://127.0.0.1:0,ipc://%s", in_directory("socket"));
    snprintf(ready, sizeof ready, "--ready-file=%s", in_directory("ready"));
    start(&b, FLAGS(ipc, ready));
    wait_ready(&b);
    char text[4096] = "";
    FILE *f = fopen(in_directory("ready"), "r");
    cr_assert(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    cr_assert_str_eq(text, b.address);
    cr_assert(strstr(text, "ipc://"));
    stop(&b);
}

/* SIGHUP changes what can be changed and names what takes a restart; a broken file changes nothing.
 */
Test(daemon, reads_settings_again)
{
    struct broker b;
    char config[200];
    snprintf(config, sizeof config, "--config=%s", in_directory("weir.yaml"));
    write_file(in_directory("weir.yaml"), "log-format: text\nlog-level: info\nworkers: 2\n");
    start(&b, FLAGS(ANY_PORT, config));
    wait_ready(&b);
    write_file(in_directory("weir.yaml"), "log-format: json\nlog-level: debug\nworkers: 3\n");
    kill(b.pid, SIGHUP);
    expect_log(&b, "takes effect at a restart");
    expect_log(&b, "setting=workers from=2 to=3");
    expect_log(&b, "\"message\":\"settings read again, 3 changed\"}");
    write_file(in_directory("weir.yaml"), "log-format: json\nwrokers: 3\n");
    kill(b.pid, SIGHUP);
    expect_log(&b, "settings stay as they are: '");
    expect_log(&b, "line 2: unknown setting 'wrokers'");
    close(connect_to(b.address));
    stop(&b);
}

/* A second signal ends the wait for peers that do not leave: at once, and with a status of its own.
 */
Test(daemon, exits_at_once_on_a_second_signal)
{
    struct broker b;
    start(&b, FLAGS(ANY_PORT, "--drain-timeout=10m", "--heartbeat=60s"));
    wait_ready(&b);
    int fd = connect_to(b.address);
    kill(b.pid, SIGTERM);
    expect_log(&b, "draining on SIGTERM");
    kill(b.pid, SIGTERM);
    int status = wait_exit(&b);
    close(fd);
    /* A peer that was not greeted yet may have been let go before the second signal came. */
    if (strstr(b.text, "second signal"))
        cr_assert_eq(status, 4, "%s", b.text);
    else
        cr_assert_eq(status, 0, "%s", b.text);
}

/* systemd hears when it is ready, reloading, ready again, and stopping. */
Test(daemon, notifies_the_manager)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s/notify", directory);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    setenv("NOTIFY_SOCKET", a.sun_path, 1);
    struct broker b;
    start(&b, FLAGS(ANY_PORT));
    char text[200];
    const char *const expected[] = {"READY=1", "RELOADING=1\nMONOTONIC_USEC=", "READY=1",
                                    "STOPPING=1"};
    for (size_t i = 0; i < 4; i++) {
        ssize_t n = read_some(fd, text, sizeof text - 1);
        text[n] = '\0';
        cr_assert_eq(strncmp(text, expected[i], strlen(expected[i])), 0, "%s", text);
        if (i == 0)
            kill(b.pid, SIGHUP);
        if (i == 2)
            kill(b.pid, SIGTERM);
    }
    cr_assert_eq(wait_exit(&b), 0);
    close(fd);
}

/* Wrong settings never start anything: status 2 and one line that names the mistake. */
Test(daemon, refuses_wrong_settings)
{
    struct broker b;
    cr_assert_eq(run(&b, FLAGS("--workers=0")), 2);
    cr_assert(strstr(b.text, "'workers' must be 1 to 64, not '0'"), "%s", b.text);
    cr_assert_eq(strchr(b.text, '\n'), b.text + strlen(b.text) - 1, "one line");
    cr_assert_eq(run(&b, FLAGS("--no-such-thing")), 2);
    cr_assert_eq(access(in_directory("data"), F_OK), -1);
}

/* What can be asked without starting it. */
Test(daemon, answers_questions)
{
    struct broker b;
    cr_assert_eq(run(&b, FLAGS("--check-config")), 0);
    cr_assert_str_empty(b.text);
    cr_assert_eq(run(&b, FLAGS("--version")), 0);
    cr_assert_eq(strncmp(b.text, "weir-broker ", 12), 0);
    cr_assert_eq(run(&b, FLAGS("--help")), 0);
    cr_assert(strstr(b.text, "Exit status"));
    cr_assert_eq(run(&b, FLAGS("--print-config")), 0);
    write_file(in_directory("weir.yaml"), b.text);
    char config[200];
    snprintf(config, sizeof config, "--config=%s", in_directory("weir.yaml"));
    cr_assert_eq(run(&b, FLAGS(config, "--check-config")), 0, "%s", b.text);
    cr_assert_eq(access(in_directory("data"), F_OK), -1);
}
