/* Stepped loops give the same run for the same seed. */
#include "sys/sys.h"
#include <criterion/criterion.h>
#include <stdlib.h>

#define OK(call) cr_assert_eq((call), WEIR_OK, "%s", #call)

enum { LOOPS = 3, ACTORS = 12 };

struct world;

/* Something that lives on a loop and, whenever it runs, does a few random things. */
struct actor {
    struct weir_task task;
    struct weir_timer timer;
    struct weir_job job;
    bool at_work;
    struct world *world;
    struct weir_loop *loop;
    unsigned id;
};

struct world {
    struct weir_clock_manual clock;
    struct weir_loop *loops[LOOPS];
    struct weir_pool *pool;
    struct actor actors[ACTORS];
    struct weir_random random;
    uint64_t trace; /* everything that ran, when, and where, folded */
    uint64_t events;
    bool ending; /* nobody starts anything any more */
};

static void
record(struct actor *actor, unsigned what)
{
    struct world *w = actor->world;
    uint64_t fields[] = {actor->id, what, weir_loop_now_us(actor->loop)};
    for (size_t i = 0; i < 3; i++)
        w->trace = (w->trace ^ fields[i]) * 0x100000001b3u + (w->trace >> 47);
    w->events++;
}

static void
act(struct actor *actor)
{
    struct world *w = actor->world;
    if (w->ending)
        return;
    uint64_t draw = weir_random_u64(&w->random);
    struct actor *other = &w->actors[draw % ACTORS];
    if (draw & 1u << 8)
        weir_loop_post(other->loop, &other->task);
    if (draw & 1u << 9)
        weir_timer_start(actor->loop, &actor->timer, draw >> 16 & 8191);
    if ((draw & 7u << 10) == 0)
        weir_timer_stop(actor->loop, &actor->timer);
    if (draw & 1u << 13 && !actor->at_work) {
        actor->at_work = true;
        weir_pool_submit(w->pool, actor->loop, &actor->job);
    }
}

static void
run_task(struct weir_task *task)
{
    struct actor *actor = WEIR_CONTAINER(task, struct actor, task);
    record(actor, 1);
    act(actor);
}

static void
run_timer(struct weir_timer *timer)
{
    struct actor *actor = WEIR_CONTAINER(timer, struct actor, timer);
    record(actor, 2);
    act(actor);
}

static void
run_work(struct weir_job *job)
{
    record(WEIR_CONTAINER(job, struct actor, job), 3);
}

static void
run_done(struct weir_job *job)
{
    struct actor *actor = WEIR_CONTAINER(job, struct actor, job);
    record(actor, 4);
    actor->at_work = false;
    act(actor);
}

/* The trace of a run of `rounds` rounds. */
static uint64_t
run_world(uint64_t seed, unsigned rounds, uint64_t *events_out)
{
    struct world *w = calloc(1, sizeof *w);
    weir_random_init(&w->random, seed);
    weir_clock_manual_init(&w->clock, 1764320000000);
    OK(weir_pool_new("pool", 0, &w->pool));
    for (int i = 0; i < LOOPS; i++)
        OK(weir_loop_new(&w->clock.clock, "stepped", &w->loops[i]));
    for (unsigned i = 0; i < ACTORS; i++)
        w->actors[i] = (struct actor){.task.run = run_task,
                                      .timer.run = run_timer,
                                      .job = {.work = run_work, .done = run_done},
                                      .world = w,
                                      .loop = w->loops[i % LOOPS],
                                      .id = i};
    for (unsigned round = 0; round < rounds; round++) {
        struct actor *actor = &w->actors[weir_random_below(&w->random, ACTORS)];
        weir_loop_post(actor->loop, &actor->task);
        weir_loop_step(w->loops[weir_random_below(&w->random, LOOPS)],
                       1 + weir_random_below(&w->random, 20));
        weir_clock_manual_advance(&w->clock, weir_random_below(&w->random, 4));
    }
    uint64_t trace = w->trace;
    *events_out = w->events;
    w->ending = true;
    for (int i = 0; i < LOOPS; i++)
        weir_loop_stop(w->loops[i]);
    weir_pool_free(w->pool);
    for (int i = 0; i < LOOPS; i++)
        weir_loop_free(w->loops[i]);
    free(w);
    return trace;
}

/* Tasks, timers and jobs on several loops: the seed alone decides what runs when. */
Test(stepped, a_seed_repeats_its_run)
{
    uint64_t first, events, again;
    weir_random_bytes(&first, sizeof first);
    uint64_t last_trace = 0;
    for (uint64_t seed = first; seed < first + 40; seed++) {
        uint64_t trace = run_world(seed, 300, &events);
        cr_expect_eq(run_world(seed, 300, &again), trace, "seed %lu", seed);
        cr_expect_eq(again, events, "seed %lu", seed);
        cr_expect_gt(events, 300u, "seed %lu", seed);
        cr_expect_neq(trace, last_trace, "seed %lu", seed);
        last_trace = trace;
    }
}
