#include "base/assert.h"
#include "sys/loop.h"
#include "sys/random.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define OK(call) cr_assert_eq((call), WEIR_OK, "%s", #call)
#define START_MS 1764320000000u

/* Lets a test wait for another thread, up to ten seconds. */
struct gate {
    pthread_mutex_t mtx;
    pthread_cond_t changed;
    unsigned passed;
};

static void
gate_init(struct gate *gate)
{
    pthread_mutex_init(&gate->mtx, NULL);
    pthread_cond_init(&gate->changed, NULL);
    gate->passed = 0;
}

static void
gate_pass(struct gate *gate)
{
    pthread_mutex_lock(&gate->mtx);
    gate->passed++;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mtx);
}

static void
gate_wait(struct gate *gate, unsigned passed)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 10;
    pthread_mutex_lock(&gate->mtx);
    while (gate->passed < passed)
        cr_assert_eq(pthread_cond_timedwait(&gate->changed, &gate->mtx, &deadline), 0);
    pthread_mutex_unlock(&gate->mtx);
}

/* What ran, in order. */
struct record {
    int ids[64];
    size_t count;
};

struct numbered {
    struct weir_task task;
    struct weir_timer timer;
    struct record *record;
    int id;
    struct weir_loop *loop;
    int again;
};

static void
note(struct numbered *n)
{
    cr_assert_lt(n->record->count, 64u);
    n->record->ids[n->record->count++] = n->id;
}

static void
note_task(struct weir_task *task)
{
    struct numbered *n = WEIR_CONTAINER(task, struct numbered, task);
    note(n);
    if (n->again-- > 0)
        weir_loop_post(n->loop, task);
}

static void
note_timer(struct weir_timer *timer)
{
    struct numbered *n = WEIR_CONTAINER(timer, struct numbered, timer);
    note(n);
    if (n->again-- > 0)
        weir_timer_start(n->loop, timer, 0);
}

static struct numbered
numbered(struct weir_loop *loop, struct record *record, int id)
{
    return (struct numbered){
        .task.run = note_task, .timer.run = note_timer, .record = record, .id = id, .loop = loop};
}

static void
expect(const struct record *record, const char *order)
{
    cr_expect_eq(record->count, strlen(order), "%zu ran", record->count);
    for (size_t i = 0; i < record->count && order[i]; i++)
        cr_expect_eq(record->ids[i], order[i] - '0', "place %zu: %d", i, record->ids[i]);
}

/* Tasks run in the order they were posted, once each, however often they are posted meanwhile. */
Test(loop, runs_tasks_in_order_once)
{
    struct weir_clock_manual clock;
    struct weir_loop *loop;
    struct record record = {0};
    weir_clock_manual_init(&clock, START_MS);
    OK(weir_loop_new(&clock.clock, "test", &loop));
    struct numbered a = numbered(loop, &record, 1), b = numbered(loop, &record, 2);
    cr_expect(weir_loop_post(loop, &a.task));
    cr_expect(weir_loop_post(loop, &b.task));
    cr_expect_not(weir_loop_post(loop, &a.task));
    cr_expect_eq(weir_loop_step(loop, 100), 2);
    expect(&record, "12");
    cr_expect(weir_loop_post(loop, &a.task));
    cr_expect_eq(weir_loop_step(loop, 100), 1);
    expect(&record, "121");
    weir_loop_stop(loop);
    weir_loop_free(loop);
}

/* A task may post itself while it runs; it then runs after those that were there before. */
Test(loop, lets_a_task_post_itself)
{
    struct weir_clock_manual clock;
    struct weir_loop *loop;
    struct record record = {0};
    weir_clock_manual_init(&clock, START_MS);
    OK(weir_loop_new(&clock.clock, "test", &loop));
    struct numbered a = numbered(loop, &record, 1), b = numbered(loop, &record, 2);
    a.again = 2;
    weir_loop_post(loop, &a.task);
    weir_loop_post(loop, &b.task);
    weir_loop_step(loop, 100);
    expect(&record, "1211");
    weir_loop_free(loop);
}

/* A step runs no more than its limit; the next one goes on where it stopped. */
Test(loop, step_keeps_its_limit)
{
    struct weir_clock_manual clock;
    struct weir_loop *loop;
    struct record record = {0};
    weir_clock_manual_init(&clock, START_MS);
    OK(weir_loop_new(&clock.clock, "test", &loop));
    struct numbered n[4];
    for (int i = 0; i < 4; i++) {
        n[i] = numbered(loop, &record, i);
        weir_loop_post(loop, &n[i].task);
    }
    cr_expect_eq(weir_loop_step(loop, 3), 3);
    expect(&record, "012");
    weir_loop_post(loop, &n[0].task);
    cr_expect_eq(weir_loop_step(loop, 3), 2);
    expect(&record, "01230");
    weir_loop_free(loop);
}

/* Timers run when their time has come, the earliest first; of equal moments the one started first.
 */
Test(loop, runs_timers_by_time_then_by_start)
{
    struct weir_clock_manual clock;
    struct weir_loop *loop;
    struct record record = {0};
    weir_clock_manual_init(&clock, START_MS);
    OK(weir_loop_new(&clock.clock, "test", &loop));
    struct numbered n[6];
    static const uint64_t delay_ms[] = {30, 10, 20, 10, 40, 10};
    for (int i = 0; i < 6; i++) {
        n[i] = numbered(loop, &record, i);
        weir_timer_start(loop, &n[i].timer, delay_ms[i] * 1000);
    }
    cr_expect_eq(weir_loop_next_due_us(loop), 10000);
    cr_expect_eq(weir_loop_step(loop, 100), 0);
    weir_timer_stop(loop, &n[3].timer);
    weir_timer_stop(loop, &n[3].timer);
    cr_expect_not(weir_timer_is_started(&n[3].timer));
    weir_clock_manual_advance(&clock, 9);
    cr_expect_eq(weir_loop_step(loop, 100), 0);
    weir_clock_manual_advance(&clock, 21);
    cr_expect_eq(weir_loop_step(loop, 100), 4);
    expect(&record, "1520");
    cr_expect(weir_timer_is_started(&n[4].timer));
    weir_timer_start(loop, &n[4].timer, 5000);
    weir_clock_manual_advance(&clock, 5);
    cr_expect_eq(weir_loop_step(loop, 100), 1);
    cr_expect_eq(weir_loop_next_due_us(loop), UINT64_MAX);
    weir_loop_free(loop);
}

/* A timer that starts itself with no delay does not keep tasks from running. */
Test(loop, an_eager_timer_starves_nobody)
{
    struct weir_clock_manual clock;
    struct weir_loop *loop;
    struct record record = {0};
    weir_clock_manual_init(&clock, START_MS);
    OK(weir_loop_new(&clock.clock, "test", &loop));
    struct numbered t = numbered(loop, &record, 1), a = numbered(loop, &record, 2);
    t.again = 2;
    a.again = 1;
    weir_timer_start(loop, &t.timer, 0);
    weir_loop_post(loop, &a.task);
    weir_loop_step(loop, 100);
    expect(&record, "21211");
    weir_loop_free(loop);
}

/* Against a naive list, for any order of starts, moves, stops and steps. */
Test(loop, timers_agree_with_a_naive_list)
{
    enum { TIMERS = 40 };
    uint64_t seed;
    weir_random_bytes(&seed, sizeof seed);
    struct weir_random r;
    weir_random_init(&r, seed);
    struct weir_clock_manual clock;
    struct weir_loop *loop;
    weir_clock_manual_init(&clock, START_MS);
    OK(weir_loop_new(&clock.clock, "test", &loop));
    struct record record = {0};
    struct numbered n[TIMERS];
    uint64_t due_us[TIMERS] = {0}, started[TIMERS] = {0}, starts = 0;
    for (int i = 0; i < TIMERS; i++)
        n[i] = numbered(loop, &record, i);
    for (int round = 0; round < 2000; round++) {
        int i = (int)weir_random_below(&r, TIMERS);
        if (weir_random_below(&r, 4)) {
            uint64_t delay_us = weir_random_below(&r, 20) * 1000;
            due_us[i] = weir_mono_us(&clock.clock) + delay_us;
            started[i] = ++starts;
            weir_timer_start(loop, &n[i].timer, delay_us);
        } else {
            started[i] = 0;
            weir_timer_stop(loop, &n[i].timer);
        }
        if (weir_random_below(&r, 5))
            continue;
        weir_clock_manual_advance(&clock, weir_random_below(&r, 6));
        record.count = 0;
        weir_loop_step(loop, 1000);
        for (size_t k = 0;; k++) {
            int first = -1;
            for (int j = 0; j < TIMERS; j++)
                if (started[j] && due_us[j] <= weir_mono_us(&clock.clock) &&
                    (first < 0 || due_us[j] < due_us[first] ||
                     (due_us[j] == due_us[first] && started[j] < started[first])))
                    first = j;
            if (first < 0) {
                cr_assert_eq(record.count, k, "seed %lu", seed);
                break;
            }
            cr_assert_lt(k, record.count, "seed %lu", seed);
            cr_assert_eq(record.ids[k], first, "seed %lu", seed);
            started[first] = 0;
        }
    }
    weir_loop_free(loop);
}

struct errand {
    struct weir_job job;
    struct record *record;
    int id;
    struct gate *gate;
    pthread_t worked_on;
};

static void
errand_work(struct weir_job *job)
{
    struct errand *e = WEIR_CONTAINER(job, struct errand, job);
    e->worked_on = pthread_self();
    if (e->record)
        e->record->ids[e->record->count++] = e->id;
}

static void
errand_done(struct weir_job *job)
{
    struct errand *e = WEIR_CONTAINER(job, struct errand, job);
    if (e->record)
        e->record->ids[e->record->count++] = e->id + 1;
    if (e->gate)
        gate_pass(e->gate);
}

/* A pool of no threads runs the work in the loop's step, before its next task. */
Test(loop, an_inline_pool_works_before_the_next_task)
{
    struct weir_clock_manual clock;
    struct weir_loop *loop;
    struct weir_pool *pool;
    struct record record = {0};
    weir_clock_manual_init(&clock, START_MS);
    OK(weir_loop_new(&clock.clock, "test", &loop));
    OK(weir_pool_new("pool", 0, &pool));
    struct numbered a = numbered(loop, &record, 1);
    struct errand e = {
        .job = {.work = errand_work, .done = errand_done}, .record = &record, .id = 5};
    weir_loop_post(loop, &a.task);
    weir_pool_submit(pool, loop, &e.job);
    cr_expect_eq(record.count, 0);
    cr_expect_eq(weir_loop_step(loop, 100), 3);
    expect(&record, "516");
    weir_pool_free(pool);
    weir_loop_free(loop);
}

/* What was posted to a loop that never had a thread runs when it is stopped. */
Test(loop, stop_runs_the_queue_of_a_loop_without_thread)
{
    struct weir_loop *loop;
    struct record record = {0};
    OK(weir_loop_new(weir_clock_system(), "test", &loop));
    struct numbered a = numbered(loop, &record, 1);
    a.again = 1;
    weir_loop_post(loop, &a.task);
    weir_loop_stop(loop);
    expect(&record, "11");
    weir_loop_free(loop);
}

enum { POSTERS = 4, POSTS = 5000 };

struct poster;
struct parcel {
    struct weir_task task;
    struct poster *poster;
    unsigned number;
};

struct poster {
    struct weir_loop *loop;
    struct parcel parcels[POSTS];
    unsigned seen; /* the loop only */
    unsigned misplaced;
    struct gate *gate;
};

static void
parcel_run(struct weir_task *task)
{
    struct parcel *parcel = WEIR_CONTAINER(task, struct parcel, task);
    struct poster *poster = parcel->poster;
    poster->misplaced += !weir_loop_is_current(poster->loop);
    poster->misplaced += parcel->number != poster->seen;
    if (++poster->seen == POSTS)
        gate_pass(poster->gate);
}

static void
poster_main(void *arg)
{
    struct poster *poster = arg;
    for (unsigned i = 0; i < POSTS; i++) {
        poster->parcels[i] = (struct parcel){.task.run = parcel_run, .poster = poster, .number = i};
        weir_loop_post(poster->loop, &poster->parcels[i].task);
    }
}

/* However many threads post at once, every task runs once, on the loop's thread, in its poster's
 * order. */
Test(loop, keeps_the_order_of_every_poster)
{
    struct weir_loop *loop;
    struct gate gate;
    struct weir_thread *threads[POSTERS];
    gate_init(&gate);
    OK(weir_loop_new(weir_clock_system(), "test", &loop));
    OK(weir_loop_start(loop));
    cr_expect_not(weir_loop_is_current(loop));
    struct poster *posters = calloc(POSTERS, sizeof *posters);
    for (int i = 0; i < POSTERS; i++) {
        posters[i].loop = loop;
        posters[i].gate = &gate;
        OK(weir_thread_start("poster", poster_main, &posters[i], &threads[i]));
    }
    gate_wait(&gate, POSTERS);
    for (int i = 0; i < POSTERS; i++)
        weir_thread_join(threads[i]);
    weir_loop_stop(loop);
    weir_loop_free(loop);
    for (int i = 0; i < POSTERS; i++) {
        cr_expect_eq(posters[i].seen, (unsigned)POSTS);
        cr_expect_eq(posters[i].misplaced, 0u);
    }
    free(posters);
}

struct shared_task {
    struct weir_task task;
    struct weir_loop *loop;
    atomic_uint written; /* by the posters, before each post */
    unsigned read;       /* by the loop, in its last run */
};

static void
shared_run(struct weir_task *task)
{
    struct shared_task *s = WEIR_CONTAINER(task, struct shared_task, task);
    s->read = atomic_load_explicit(&s->written, memory_order_relaxed);
}

static void
shared_poster(void *arg)
{
    struct shared_task *s = arg;
    for (unsigned i = 0; i < POSTS; i++) {
        atomic_fetch_add_explicit(&s->written, 1, memory_order_relaxed);
        weir_loop_post(s->loop, &s->task);
    }
}

/* A post that found its task queued is not lost: a run after it sees what the poster wrote before.
 */
Test(loop, a_run_sees_what_was_written_before_any_post)
{
    struct weir_loop *loop;
    struct weir_thread *threads[POSTERS];
    OK(weir_loop_new(weir_clock_system(), "test", &loop));
    OK(weir_loop_start(loop));
    struct shared_task s = {.task.run = shared_run, .loop = loop};
    for (int i = 0; i < POSTERS; i++)
        OK(weir_thread_start("poster", shared_poster, &s, &threads[i]));
    for (int i = 0; i < POSTERS; i++)
        weir_thread_join(threads[i]);
    weir_loop_stop(loop);
    cr_expect_eq(s.read, (unsigned)POSTERS * POSTS);
    weir_loop_free(loop);
}

struct ball {
    struct weir_task task;
    struct weir_loop *loops[2];
    unsigned bounces;
    struct gate *gate;
};

static void
ball_run(struct weir_task *task)
{
    struct ball *ball = WEIR_CONTAINER(task, struct ball, task);
    if (++ball->bounces == 2000)
        gate_pass(ball->gate);
    else
        weir_loop_post(ball->loops[ball->bounces % 2], task);
}

/* A loop that is about to sleep is woken, always: two loops pass one task back and forth. */
Test(loop, no_wake_up_is_lost)
{
    struct gate gate;
    struct ball ball = {.task.run = ball_run, .gate = &gate};
    gate_init(&gate);
    for (int i = 0; i < 2; i++) {
        OK(weir_loop_new(weir_clock_system(), "test", &ball.loops[i]));
        OK(weir_loop_start(ball.loops[i]));
    }
    weir_loop_post(ball.loops[0], &ball.task);
    gate_wait(&gate, 1);
    for (int i = 0; i < 2; i++)
        weir_loop_stop(ball.loops[i]);
    for (int i = 0; i < 2; i++)
        weir_loop_free(ball.loops[i]);
    cr_expect_eq(ball.bounces, 2000u);
}

struct submitter {
    struct weir_task task;
    struct weir_loop *loop;
    struct weir_pool *pool;
    struct errand errands[100];
};

static void
submit_all(struct weir_task *task)
{
    struct submitter *s = WEIR_CONTAINER(task, struct submitter, task);
    for (int i = 0; i < 100; i++)
        weir_pool_submit(s->pool, s->loop, &s->errands[i].job);
}

/* A pool's threads do the work, and the loop hears of each piece. */
Test(loop, a_pool_works_and_reports_to_its_loop)
{
    struct gate gate;
    struct submitter s = {.task.run = submit_all};
    gate_init(&gate);
    OK(weir_loop_new(weir_clock_system(), "test", &s.loop));
    OK(weir_pool_new("pool", 3, &s.pool));
    OK(weir_loop_start(s.loop));
    for (int i = 0; i < 100; i++)
        s.errands[i] =
            (struct errand){.job = {.work = errand_work, .done = errand_done}, .gate = &gate};
    weir_loop_post(s.loop, &s.task);
    gate_wait(&gate, 100);
    weir_pool_free(s.pool);
    weir_loop_stop(s.loop);
    weir_loop_free(s.loop);
}

/* Freeing a pool finishes its work, and stopping the loop after it delivers the results. */
Test(loop, freeing_a_pool_finishes_its_work)
{
    struct gate gate;
    struct submitter s = {.task.run = submit_all};
    gate_init(&gate);
    OK(weir_loop_new(weir_clock_system(), "test", &s.loop));
    OK(weir_pool_new("pool", 1, &s.pool));
    for (int i = 0; i < 100; i++)
        s.errands[i] =
            (struct errand){.job = {.work = errand_work, .done = errand_done}, .gate = &gate};
    submit_all(&s.task);
    weir_pool_free(s.pool);
    weir_loop_stop(s.loop);
    gate_wait(&gate, 100);
    weir_loop_free(s.loop);
}

struct listener {
    struct weir_task begin, pause, resume;
    struct weir_watch watch, other;
    struct weir_timer timer;
    struct weir_loop *loop;
    int pipe[2], other_pipe[2];
    unsigned heard, other_heard;
    bool stop_other;
    struct gate *gate;
};

static void
listen_ready(struct weir_watch *watch, uint32_t events)
{
    struct listener *l = WEIR_CONTAINER(watch, struct listener, watch);
    char byte;
    cr_assert(events & EPOLLIN);
    cr_assert_eq(read(watch->fd, &byte, 1), 1);
    l->heard++;
    if (l->stop_other)
        weir_watch_stop(l->loop, &l->other);
    gate_pass(l->gate);
}

static void
other_ready(struct weir_watch *watch, uint32_t events)
{
    struct listener *l = WEIR_CONTAINER(watch, struct listener, other);
    (void)events;
    l->other_heard++;
    weir_watch_stop(l->loop, &l->watch);
    gate_pass(l->gate);
}

static void
listen_begin(struct weir_task *task)
{
    struct listener *l = WEIR_CONTAINER(task, struct listener, begin);
    OK(weir_watch_start(l->loop, &l->watch, l->pipe[0], EPOLLIN));
    if (l->stop_other)
        OK(weir_watch_start(l->loop, &l->other, l->other_pipe[0], EPOLLIN));
    gate_pass(l->gate);
}

static void
listen_pause(struct weir_task *task)
{
    struct listener *l = WEIR_CONTAINER(task, struct listener, pause);
    OK(weir_watch_change(l->loop, &l->watch, 0));
    gate_pass(l->gate);
}

static void
listen_resume(struct weir_task *task)
{
    struct listener *l = WEIR_CONTAINER(task, struct listener, resume);
    cr_expect_eq(l->heard, 1u);
    OK(weir_watch_change(l->loop, &l->watch, EPOLLIN));
}

/* A watch reports its descriptor, is silent while paused, and goes on after that. */
Test(loop, a_paused_watch_is_silent)
{
    struct gate gate;
    struct listener l = {.begin.run = listen_begin,
                         .pause.run = listen_pause,
                         .resume.run = listen_resume,
                         .watch.ready = listen_ready,
                         .gate = &gate};
    gate_init(&gate);
    cr_assert_eq(pipe(l.pipe), 0);
    OK(weir_loop_new(weir_clock_system(), "test", &l.loop));
    cr_expect_eq(weir_watch_start(l.loop, &l.watch, l.pipe[0], EPOLLIN), WEIR_UNSUPPORTED);
    OK(weir_loop_start(l.loop));
    weir_loop_post(l.loop, &l.begin);
    cr_assert_eq(write(l.pipe[1], "a", 1), 1);
    gate_wait(&gate, 2);
    weir_loop_post(l.loop, &l.pause);
    gate_wait(&gate, 3);
    cr_assert_eq(write(l.pipe[1], "b", 1), 1);
    weir_loop_post(l.loop, &l.resume);
    gate_wait(&gate, 4);
    weir_loop_stop(l.loop);
    cr_expect_eq(l.heard, 2u);
    weir_watch_stop(l.loop, &l.watch);
    weir_watch_stop(l.loop, &l.watch);
    close(l.pipe[0]);
    close(l.pipe[1]);
    weir_loop_free(l.loop);
}

/* Of two descriptors that are ready at once, the first handler may stop the other's watch: it is
 * not called any more. */
Test(loop, a_stopped_watch_is_not_called_in_the_same_round)
{
    struct gate gate;
    struct listener l = {.begin.run = listen_begin,
                         .watch.ready = listen_ready,
                         .other.ready = other_ready,
                         .stop_other = true,
                         .gate = &gate};
    gate_init(&gate);
    cr_assert_eq(pipe(l.pipe), 0);
    cr_assert_eq(pipe(l.other_pipe), 0);
    cr_assert_eq(write(l.pipe[1], "a", 1), 1);
    cr_assert_eq(write(l.other_pipe[1], "a", 1), 1);
    OK(weir_loop_new(weir_clock_system(), "test", &l.loop));
    OK(weir_loop_start(l.loop));
    weir_loop_post(l.loop, &l.begin);
    gate_wait(&gate, 2);
    weir_loop_stop(l.loop);
    cr_expect_eq(l.heard + l.other_heard, 1u);
    weir_watch_stop(l.loop, &l.watch);
    weir_watch_stop(l.loop, &l.other);
    for (int i = 0; i < 2; i++) {
        close(l.pipe[i]);
        close(l.other_pipe[i]);
    }
    weir_loop_free(l.loop);
}

static void
timer_rings(struct weir_timer *timer)
{
    gate_pass(WEIR_CONTAINER(timer, struct listener, timer)->gate);
}

static void
timer_begin(struct weir_task *task)
{
    struct listener *l = WEIR_CONTAINER(task, struct listener, begin);
    weir_timer_start(l->loop, &l->timer, 2000);
}

/* A sleeping loop wakes for its timers. */
Test(loop, wakes_for_a_timer)
{
    struct gate gate;
    struct listener l = {.begin.run = timer_begin, .timer.run = timer_rings, .gate = &gate};
    gate_init(&gate);
    OK(weir_loop_new(weir_clock_system(), "test", &l.loop));
    OK(weir_loop_start(l.loop));
    weir_loop_post(l.loop, &l.begin);
    gate_wait(&gate, 1);
    weir_loop_stop(l.loop);
    weir_loop_free(l.loop);
}
