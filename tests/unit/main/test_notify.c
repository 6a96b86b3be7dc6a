#include "main/notify.h"
#include <criterion/criterion.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int
listen_at(const char *name, bool abstract)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, name);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    if (abstract)
        a.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, abstract ? len : sizeof a), 0);
    return fd;
}

static void
expect(int fd, const char *text)
{
    char got[100];
    ssize_t n = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);
    cr_assert_gt(n, 0);
    got[n] = '\0';
    cr_assert_str_eq(got, text);
    close(fd);
}

/* The message arrives at a socket in the file system and at an abstract one. */
Test(notify, tells_the_manager)
{
    char directory[] = "/tmp/weir-notify-XXXXXX", name[60];
    cr_assert(mkdtemp(directory));
    snprintf(name, sizeof name, "%s/s", directory);
    int fd = listen_at(name, false);
    weir_notify(name, "READY=1");
    expect(fd, "READY=1");
    unlink(name);
    rmdir(directory);
    snprintf(name, sizeof name, "@weir-notify-%d", (int)getpid());
    fd = listen_at(name, true);
    weir_notify(name, "STOPPING=1");
    expect(fd, "STOPPING=1");
}

/* Nobody there, no name, a name that cannot be: nothing happens. */
Test(notify, does_not_mind_nobody)
{
    char name[300];
    weir_notify(NULL, "READY=1");
    weir_notify("", "READY=1");
    weir_notify("relative", "READY=1");
    weir_notify("/no/such/socket", "READY=1");
    memset(name, '/', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    weir_notify(name, "READY=1");
}
