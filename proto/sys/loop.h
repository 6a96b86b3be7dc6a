/* Owner threads. A loop runs tasks, timers and (later) sockets on one thread; others post to it.
 *
 *   any thread --weir_loop_post(task)--> queue --> the loop's thread runs task->run(task)
 *
 * Posting allocates nothing and takes no lock: tasks are part of what they work on, and a task is
 * in at most one queue at a time. Tasks of one poster run in the order they were posted.
 *
 * A loop is either started on a thread of its own (weir_loop_start), or stepped by a test
 * (weir_loop_step) with a clock that the test owns: then nothing runs in between, and the same seed
 * gives the same run.
 *
 * Blocking work (files, databases) goes to a pool: weir_pool_submit() runs job->work on one of its
 * threads and then posts job->done to the loop that submitted it. A pool of no threads runs the
 * work inside weir_loop_step() of the submitting loop, before its next task. */
#pragma once
#include "base/list.h"
#include "base/status.h"
#include "sys/clock.h"
#include <stdatomic.h>

struct weir_loop;
struct weir_pool;

struct weir_task {
    void (*run)(struct weir_task *task);
    _Atomic(struct weir_task *) next; /* private */
    atomic_bool queued;               /* private */
};

struct weir_timer {
    void (*run)(struct weir_timer *timer);
    uint64_t due_us; /* private, monotonic */
    uint32_t index;  /* private: place in the heap plus one; 0 is not started */
    uint32_t order;  /* private: of equal moments the one started first runs first */
};

struct weir_job {
    void (*work)(struct weir_job *job); /* on a pool thread */
    void (*done)(struct weir_job *job); /* on the submitting loop */
    struct weir_loop *loop;             /* private */
    struct weir_task task;              /* private */
    struct weir_list node;              /* private */
};

/* `name` (15 characters) names the thread. NO_MEMORY, IO. */
enum weir_status weir_loop_new(struct weir_clock *clock, const char *name, struct weir_loop **out);
/* Starts the loop's thread. */
enum weir_status weir_loop_start(struct weir_loop *loop);
/* Lets the thread run what is queued, ends it and waits for it. Not from the loop itself. A loop
 * that was never started has its queue run here. */
void weir_loop_stop(struct weir_loop *loop);
/* After stop, and when no thread can still be inside weir_loop_post: free the pools and join the
 * threads that post first. NULL is allowed. */
void weir_loop_free(struct weir_loop *loop);
/* Runs `run` on the loop. Any thread; a task that is still queued is left where it is (false). */
bool weir_loop_post(struct weir_loop *loop, struct weir_task *task);
/* True on the loop's own thread, or in a stepped loop always. For assertions. */
bool weir_loop_is_current(const struct weir_loop *loop);
/* Time as the loop saw it when the present round began (monotonic). */
uint64_t weir_loop_now_us(const struct weir_loop *loop);
uint64_t weir_loop_now_ms(const struct weir_loop *loop); /* wall clock, read now */
/* Tests only: runs queued tasks, inline pool jobs and due timers until nothing is ready; returns
 * how many ran. Bounded by `limit` tasks. */
size_t weir_loop_step(struct weir_loop *loop, size_t limit);
/* Monotonic moment of the next timer, UINT64_MAX if none. Stepped loops only. */
uint64_t weir_loop_next_due_us(const struct weir_loop *loop);

/* Owner thread only. Starting a started timer moves it. */
void weir_timer_start(struct weir_loop *loop, struct weir_timer *timer, uint64_t delay_us);
void weir_timer_stop(struct weir_loop *loop, struct weir_timer *timer);
static inline bool
weir_timer_is_started(const struct weir_timer *timer)
{
    return timer->index != 0;
}

/* A descriptor on the loop (epoll, level-triggered); owner thread only. `events` are EPOLLIN,
 * EPOLLOUT, 0 to pause (nothing is reported then, not even a hang-up). UNSUPPORTED on a stepped
 * loop. Stop the watch before the descriptor is closed; after that `ready` does not run again, and
 * stopping once more is allowed. */
struct weir_watch {
    void (*ready)(struct weir_watch *watch, uint32_t events);
    int fd;
    uint32_t events; /* private */
};
enum weir_status weir_watch_start(struct weir_loop *loop, struct weir_watch *watch, int fd,
                                  uint32_t events);
enum weir_status weir_watch_change(struct weir_loop *loop, struct weir_watch *watch,
                                   uint32_t events);
void weir_watch_stop(struct weir_loop *loop, struct weir_watch *watch);

/* `threads` 0: inline, for stepped loops. */
enum weir_status weir_pool_new(const char *name, unsigned threads, struct weir_pool **out);
/* From the thread of `loop`. */
void weir_pool_submit(struct weir_pool *pool, struct weir_loop *loop, struct weir_job *job);
/* Finishes all work, then ends the threads; `done`s may still be queued on their loops. */
void weir_pool_free(struct weir_pool *pool);

/* A plain joinable thread with a name, for the committer and the like. */
struct weir_thread;
enum weir_status weir_thread_start(const char *name, void (*main)(void *arg), void *arg,
                                   struct weir_thread **out);
void weir_thread_join(struct weir_thread *thread); /* NULL is allowed */
