/* What the client's tests share. Waiting is for events, with a deadline that only a hang meets. */
#pragma once
#include "client/weir.h"
#include "sys/random.h"
#include "unit/client/fake.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DEADLINE_MS 60000

#define OK(call)                                                                    \
    do {                                                                            \
        struct weir_error *ok_err = &error;                                         \
        ok_err->text[0] = 0;                                                        \
        enum weir_status ok_st = (call);                                            \
        cr_assert(ok_st == WEIR_OK, "%s:%d: %s: %s: %s", __FILE__, __LINE__, #call, \
                  weir_status_name(ok_st), ok_err->text);                           \
    } while (0)

static struct weir_error error;
static char directory[64], url[128];

[[maybe_unused]] static void
make_directory(void)
{
    snprintf(directory, sizeof directory, "/tmp/weir-client-XXXXXX");
    cr_assert(mkdtemp(directory) != NULL);
    snprintf(url, sizeof url, "ipc://%s/s", directory);
}

[[maybe_unused]] static void
remove_directory(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/s", directory);
    unlink(path);
    rmdir(directory);
}

[[maybe_unused]] static struct weir_client *
connect_to(struct fake *f)
{
    struct weir_client *c = NULL;
    OK(weir_client_open(&(struct weir_client_options){.url = fake_url(f),
                                                      .name = "test",
                                                      .connect_timeout_ms = DEADLINE_MS},
                        &c, &error));
    return c;
}

[[maybe_unused]] static void
expect_text(const char *text, const char *wanted)
{
    cr_expect(strcmp(text, wanted) == 0, "'%s' is not '%s'", text, wanted);
}

/* Something that other threads count up. */
struct counter {
    pthread_mutex_t mtx;
    pthread_cond_t cond;
    unsigned n;
};
#define COUNTER                                                \
    (struct counter)                                           \
    {                                                          \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 \
    }

[[maybe_unused]] static void
count_up(struct counter *c)
{
    pthread_mutex_lock(&c->mtx);
    c->n++;
    pthread_cond_broadcast(&c->cond);
    pthread_mutex_unlock(&c->mtx);
}

[[maybe_unused]] static void
wait_for(struct counter *c, unsigned n)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += DEADLINE_MS / 1000;
    pthread_mutex_lock(&c->mtx);
    int rc = 0;
    while (c->n < n && rc == 0)
        rc = pthread_cond_timedwait(&c->cond, &c->mtx, &at);
    unsigned reached = c->n;
    pthread_mutex_unlock(&c->mtx);
    cr_assert(reached >= n, "only %u of %u came", reached, n);
}
