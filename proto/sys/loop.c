/* One round of a loop:
 *
 *   take what was posted, in order -> run inline jobs and tasks -> run timers that are due
 *   -> sleep in epoll until a descriptor, the next timer, or a poster -> sockets -> next round
 *
 * Posted tasks are a stack that only grows at the top (`posted`); the loop takes the whole of it at
 * once and turns it over, which gives every poster its order. Before it sleeps, the loop swaps an
 * empty stack for the mark SLEEPING. The poster that finds the mark rings the eventfd; nobody else
 * makes a system call.
 *
 *   posted:  NULL --post--> task -> task -> NULL --take--> NULL
 *            NULL --about to sleep--> SLEEPING --post: ring--> task -> NULL */
#include "sys/loop.h"
#include "base/assert.h"
#include "sys/loop_private.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 64

struct weir_loop {
    /* shared */
    _Alignas(64) _Atomic(struct weir_task *) posted;
    atomic_bool started;
    int bell; /* eventfd, -1 on a loop that was never started */

    /* owner only */
    _Alignas(64) struct weir_clock *clock;
    struct weir_task *ready, *ready_last; /* taken, in the order they run */
    struct weir_list jobs;                /* inline pool work */
    uint64_t now_us;
    bool in_round, stopping;
    struct weir_timer **heap; /* the earliest first */
    uint32_t timers, heap_capacity, timer_order;
    int epoll;
    size_t watches; /* that epoll knows */
    uint64_t rings; /* that posters owe, or gave */
    struct epoll_event events[EVENTS_MAX];
    int event_at, event_count;

    struct weir_task stop;
    struct weir_thread *thread;
    char name[16];
};

static struct weir_task sleeping_mark;
#define SLEEPING (&sleeping_mark)

/* The loop whose thread this is. */
static _Thread_local const struct weir_loop *current;

enum weir_status
weir_loop_new(struct weir_clock *clock, const char *name, struct weir_loop **out)
{
    struct weir_loop *loop = aligned_alloc(64, (sizeof *loop + 63) / 64 * 64);
    if (!loop)
        return WEIR_NO_MEMORY;
    *loop = (struct weir_loop){.clock = clock, .bell = -1, .epoll = -1};
    weir_list_init(&loop->jobs);
    strncpy(loop->name, name, sizeof loop->name - 1);
    *out = loop;
    return WEIR_OK;
}

static void
ring(struct weir_loop *loop)
{
    uint64_t one = 1;
    while (write(loop->bell, &one, sizeof one) < 0)
        WEIR_ASSERT(errno == EINTR);
}

bool
weir_loop_post(struct weir_loop *loop, struct weir_task *task)
{
    /* Also where the task is queued already, this passes what the caller wrote on to its run. */
    if (atomic_exchange_explicit(&task->queued, true, memory_order_acq_rel))
        return false;
    struct weir_task *top = atomic_load_explicit(&loop->posted, memory_order_relaxed);
    do
        atomic_store_explicit(&task->next, top == SLEEPING ? NULL : top, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&loop->posted, &top, task, memory_order_acq_rel,
                                                  memory_order_relaxed));
    if (top == SLEEPING)
        ring(loop);
    return true;
}

/* Moves what was posted behind what is ready. */
static void
take_posted(struct weir_loop *loop)
{
    struct weir_task *task = atomic_load_explicit(&loop->posted, memory_order_relaxed);
    if (!task)
        return;
    task = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acq_rel);
    if (!task || task == SLEEPING)
        return;
    struct weir_task *first = NULL, *last = task;
    while (task) {
        struct weir_task *next = atomic_load_explicit(&task->next, memory_order_relaxed);
        atomic_store_explicit(&task->next, first, memory_order_relaxed);
        first = task;
        task = next;
    }
    if (loop->ready)
        atomic_store_explicit(&loop->ready_last->next, first, memory_order_relaxed);
    else
        loop->ready = first;
    loop->ready_last = last;
}

static void
run_done(struct weir_task *task)
{
    struct weir_job *job = WEIR_CONTAINER(task, struct weir_job, task);
    job->done(job);
}

void
weir_loop_post_done(struct weir_job *job)
{
    job->task.run = run_done;
    weir_loop_post(job->loop, &job->task);
}

void
weir_loop_run_inline(struct weir_loop *loop, struct weir_job *job)
{
    WEIR_ASSERT(weir_loop_is_current(loop));
    weir_list_push_back(&loop->jobs, &job->node);
}

/* Inline jobs, then a task, and so on until neither is ready; returns how many ran. */
static size_t
run_ready(struct weir_loop *loop, size_t limit)
{
    size_t ran = 0;
    while (ran < limit) {
        struct weir_list *node = weir_list_pop_front(&loop->jobs);
        struct weir_task *task = loop->ready;
        if (node) {
            struct weir_job *job = WEIR_CONTAINER(node, struct weir_job, node);
            job->work(job);
            weir_loop_post_done(job);
        } else if (task) {
            loop->ready = atomic_load_explicit(&task->next, memory_order_relaxed);
            atomic_exchange_explicit(&task->queued, false, memory_order_acq_rel);
            task->run(task); /* may free or post the task */
        } else {
            break;
        }
        ran++;
    }
    return ran;
}

static bool
is_before(const struct weir_timer *a, const struct weir_timer *b)
{
    if (a->due_us != b->due_us)
        return a->due_us < b->due_us;
    return (int32_t)(a->order - b->order) < 0;
}

static void
heap_set(struct weir_loop *loop, uint32_t at, struct weir_timer *timer)
{
    loop->heap[at] = timer;
    timer->index = at + 1;
}

/* Puts the timer where it belongs, beginning at the free place `at`. */
static void
heap_settle(struct weir_loop *loop, uint32_t at, struct weir_timer *timer)
{
    while (at > 0 && is_before(timer, loop->heap[(at - 1) / 2])) {
        heap_set(loop, at, loop->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= loop->timers)
            break;
        if (child + 1 < loop->timers && is_before(loop->heap[child + 1], loop->heap[child]))
            child++;
        if (!is_before(loop->heap[child], timer))
            break;
        heap_set(loop, at, loop->heap[child]);
        at = child;
    }
    heap_set(loop, at, timer);
}

void
weir_timer_start(struct weir_loop *loop, struct weir_timer *timer, uint64_t delay_us)
{
    WEIR_ASSERT(weir_loop_is_current(loop));
    uint64_t now_us = weir_mono_us(loop->clock);
    timer->due_us = delay_us < UINT64_MAX - 1 - now_us ? now_us + delay_us : UINT64_MAX - 1;
    timer->order = loop->timer_order++;
    if (timer->index) {
        WEIR_ASSERT(loop->heap[timer->index - 1] == timer);
        heap_settle(loop, timer->index - 1, timer);
        return;
    }
    if (loop->timers == loop->heap_capacity) {
        /* Eight bytes for a timer that exists: whoever has no memory for them is past helping. */
        uint32_t capacity = loop->heap_capacity ? 2 * loop->heap_capacity : 16;
        struct weir_timer **heap = realloc(loop->heap, capacity * sizeof(struct weir_timer *));
        WEIR_ASSERT(heap);
        loop->heap = heap;
        loop->heap_capacity = capacity;
    }
    heap_settle(loop, loop->timers++, timer);
}

void
weir_timer_stop(struct weir_loop *loop, struct weir_timer *timer)
{
    WEIR_ASSERT(weir_loop_is_current(loop));
    if (!timer->index)
        return;
    uint32_t at = timer->index - 1;
    WEIR_ASSERT(loop->heap[at] == timer);
    timer->index = 0;
    struct weir_timer *last = loop->heap[--loop->timers];
    if (last != timer)
        heap_settle(loop, at, last);
}

/* Timers that were due when the round began. One that starts itself anew waits for the next round.
 */
static size_t
run_timers(struct weir_loop *loop, size_t limit)
{
    size_t ran = 0;
    uint32_t until = loop->timer_order;
    while (ran < limit && loop->timers > 0) {
        struct weir_timer *timer = loop->heap[0];
        if (timer->due_us > loop->now_us || (int32_t)(timer->order - until) >= 0)
            break;
        weir_timer_stop(loop, timer);
        timer->run(timer);
        ran++;
    }
    return ran;
}

size_t
weir_loop_step(struct weir_loop *loop, size_t limit)
{
    WEIR_ASSERT(!atomic_load(&loop->started));
    size_t total = 0, ran;
    loop->in_round = true;
    do {
        loop->now_us = weir_mono_us(loop->clock);
        take_posted(loop);
        ran = run_ready(loop, limit - total);
        ran += run_timers(loop, limit - total - ran);
        total += ran;
    } while (ran > 0 && total < limit);
    loop->in_round = false;
    return total;
}

uint64_t
weir_loop_next_due_us(const struct weir_loop *loop)
{
    return loop->timers ? loop->heap[0]->due_us : UINT64_MAX;
}

bool
weir_loop_is_current(const struct weir_loop *loop)
{
    return current == loop || !atomic_load_explicit(&loop->started, memory_order_acquire);
}

uint64_t
weir_loop_now_us(const struct weir_loop *loop)
{
    return loop->in_round ? loop->now_us : weir_mono_us(loop->clock);
}

uint64_t
weir_loop_now_ms(const struct weir_loop *loop)
{
    return weir_now_ms(loop->clock);
}

static enum weir_status
epoll_set(struct weir_loop *loop, struct weir_watch *watch, uint32_t events)
{
    /* A paused watch is taken out: epoll reports errors and hang-ups to whoever is in. */
    struct epoll_event event = {.events = events, .data.ptr = watch};
    int how = !events ? EPOLL_CTL_DEL : watch->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (events == watch->events)
        return WEIR_OK;
    if (epoll_ctl(loop->epoll, how, watch->fd, &event))
        return weir_status_from_errno(errno);
    loop->watches += how == EPOLL_CTL_ADD;
    loop->watches -= how == EPOLL_CTL_DEL;
    watch->events = events;
    return WEIR_OK;
}

enum weir_status
weir_watch_start(struct weir_loop *loop, struct weir_watch *watch, int fd, uint32_t events)
{
    if (!atomic_load(&loop->started))
        return WEIR_UNSUPPORTED;
    WEIR_ASSERT(weir_loop_is_current(loop));
    watch->fd = fd;
    watch->events = 0;
    return epoll_set(loop, watch, events);
}

enum weir_status
weir_watch_change(struct weir_loop *loop, struct weir_watch *watch, uint32_t events)
{
    WEIR_ASSERT(weir_loop_is_current(loop));
    return epoll_set(loop, watch, events);
}

void
weir_watch_stop(struct weir_loop *loop, struct weir_watch *watch)
{
    WEIR_ASSERT(weir_loop_is_current(loop));
    if (watch->events)
        WEIR_ASSERT(epoll_set(loop, watch, 0) == WEIR_OK);
    for (int i = loop->event_at; i < loop->event_count; i++) {
        if (loop->events[i].data.ptr == watch)
            loop->events[i].data.ptr = NULL;
    }
}

/* To the microsecond where the kernel can (5.11), else up to the next millisecond. */
static int
epoll_sleep(struct weir_loop *loop, uint64_t sleep_us)
{
    if (sleep_us == 0)
        return epoll_wait(loop->epoll, loop->events, EVENTS_MAX, 0);
    if (sleep_us == UINT64_MAX)
        return epoll_wait(loop->epoll, loop->events, EVENTS_MAX, -1);
    struct timespec sleep = {(time_t)(sleep_us / 1000000), (long)(sleep_us % 1000000) * 1000};
    int n = epoll_pwait2(loop->epoll, loop->events, EVENTS_MAX, &sleep, NULL);
    if (n >= 0 || errno == EINTR)
        return n;
    int sleep_ms = sleep_us < 1000000 * 1000 ? (int)((sleep_us + 999) / 1000) : 1000000;
    return epoll_wait(loop->epoll, loop->events, EVENTS_MAX, sleep_ms);
}

static uint64_t
until_next_timer(const struct weir_loop *loop)
{
    if (!loop->timers)
        return UINT64_MAX;
    uint64_t due_us = loop->heap[0]->due_us, now_us = weir_mono_us(loop->clock);
    return due_us > now_us ? due_us - now_us : 0;
}

static void
run_watches(struct weir_loop *loop)
{
    for (loop->event_at = 0; loop->event_at < loop->event_count;) {
        struct epoll_event event = loop->events[loop->event_at++];
        struct weir_watch *watch = event.data.ptr;
        if (!watch)
            continue; /* the bell, or stopped since */
        uint32_t events = event.events & (watch->events | EPOLLERR | EPOLLHUP);
        if (watch->events && events)
            watch->ready(watch, events);
    }
    loop->event_count = 0;
}

static void
sleep_and_watch(struct weir_loop *loop)
{
    struct weir_task *none = NULL;
    bool idle = weir_list_is_empty(&loop->jobs) &&
                atomic_compare_exchange_strong_explicit(&loop->posted, &none, SLEEPING,
                                                        memory_order_acq_rel, memory_order_relaxed);
    if (!idle && !loop->watches)
        return;
    int n = epoll_sleep(loop, idle ? until_next_timer(loop) : 0);
    WEIR_ASSERT(n >= 0 || errno == EINTR);
    struct weir_task *mark = SLEEPING;
    if (idle && !atomic_compare_exchange_strong_explicit(
                    &loop->posted, &mark, NULL, memory_order_acq_rel, memory_order_relaxed))
        loop->rings++; /* a poster took the mark */
    loop->event_count = n > 0 ? n : 0;
    loop->now_us = weir_mono_us(loop->clock);
    run_watches(loop);
}

static bool
is_drained(struct weir_loop *loop)
{
    return !loop->ready && weir_list_is_empty(&loop->jobs) &&
           !atomic_load_explicit(&loop->posted, memory_order_acquire);
}

static void
run_thread(void *arg)
{
    struct weir_loop *loop = arg;
    current = loop;
    loop->in_round = true;
    for (;;) {
        loop->now_us = weir_mono_us(loop->clock);
        take_posted(loop);
        run_ready(loop, SIZE_MAX);
        run_timers(loop, SIZE_MAX);
        if (!loop->stopping)
            sleep_and_watch(loop);
        else if (is_drained(loop))
            break;
    }
    loop->in_round = false;
    current = NULL;
}

static void
run_stop(struct weir_task *task)
{
    WEIR_CONTAINER(task, struct weir_loop, stop)->stopping = true;
}

enum weir_status
weir_loop_start(struct weir_loop *loop)
{
    WEIR_ASSERT(!atomic_load(&loop->started));
    WEIR_ASSERT(loop->epoll < 0);
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll < 0 || loop->bell < 0)
        goto failed;
    /* Edge-triggered: every ring is an edge, so nobody has to read the counter. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->bell, &event))
        goto failed;
    loop->stop.run = run_stop;
    atomic_store(&loop->started, true);
    if (!weir_thread_start(loop->name, run_thread, loop, &loop->thread))
        return WEIR_OK;
    atomic_store(&loop->started, false);
failed:
    close(loop->epoll);
    close(loop->bell);
    loop->epoll = loop->bell = -1;
    return WEIR_IO;
}

void
weir_loop_stop(struct weir_loop *loop)
{
    if (atomic_load(&loop->started)) {
        WEIR_ASSERT(current != loop);
        weir_loop_post(loop, &loop->stop);
        weir_thread_join(loop->thread);
        loop->thread = NULL;
        atomic_store(&loop->started, false);
    }
    /* What was posted after the thread had ended, or to a loop that had none. Timers stay. */
    loop->in_round = true;
    do {
        loop->now_us = weir_mono_us(loop->clock);
        take_posted(loop);
    } while (run_ready(loop, SIZE_MAX) > 0);
    loop->in_round = false;
}

/* Who took the mark rings when its task may have run already: waits for the last of them. Nobody
 * else reads the bell, so its counter is all that were. */
static void
await_rings(struct weir_loop *loop)
{
    for (uint64_t heard = 0, more; heard < loop->rings;) {
        struct pollfd bell = {.fd = loop->bell, .events = POLLIN};
        WEIR_ASSERT(poll(&bell, 1, -1) >= 0 || errno == EINTR);
        if (read(loop->bell, &more, sizeof more) == sizeof more)
            heard += more;
    }
}

void
weir_loop_free(struct weir_loop *loop)
{
    if (!loop)
        return;
    WEIR_ASSERT(!atomic_load(&loop->started));
    await_rings(loop);
    if (loop->epoll >= 0)
        close(loop->epoll);
    if (loop->bell >= 0)
        close(loop->bell);
    free(loop->heap);
    free(loop);
}
