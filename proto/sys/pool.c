#include "base/assert.h"
#include "sys/loop_private.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct weir_thread {
    pthread_t id;
    void (*main)(void *arg);
    void *arg;
    char name[16];
};

static void *
thread_main(void *arg)
{
    struct weir_thread *thread = arg;
    pthread_setname_np(pthread_self(), thread->name);
    thread->main(thread->arg);
    return NULL;
}

enum weir_status
weir_thread_start(const char *name, void (*main)(void *arg), void *arg, struct weir_thread **out)
{
    struct weir_thread *thread = calloc(1, sizeof *thread);
    if (!thread)
        return WEIR_NO_MEMORY;
    thread->main = main;
    thread->arg = arg;
    strncpy(thread->name, name, sizeof thread->name - 1);

    /* Signals to the process are for the main thread. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread->id, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        free(thread);
        return weir_status_from_errno(failed);
    }
    *out = thread;
    return WEIR_OK;
}

void
weir_thread_join(struct weir_thread *thread)
{
    if (!thread)
        return;
    WEIR_ASSERT(pthread_join(thread->id, NULL) == 0);
    free(thread);
}

struct weir_pool {
    unsigned threads; /* 0: the loops run the work */
    pthread_mutex_t mtx;
    pthread_cond_t more;

    /* shared, under mtx */
    struct weir_list jobs;
    bool ending;

    struct weir_thread *thread[];
};

static void
work(void *arg)
{
    struct weir_pool *pool = arg;
    pthread_mutex_lock(&pool->mtx);
    for (;;) {
        struct weir_list *node = weir_list_pop_front(&pool->jobs);
        if (node) {
            struct weir_job *job = WEIR_CONTAINER(node, struct weir_job, node);
            pthread_mutex_unlock(&pool->mtx);
            job->work(job);
            weir_loop_post_done(job); /* the loop may free the job from here on */
            pthread_mutex_lock(&pool->mtx);
        } else if (pool->ending) {
            break;
        } else {
            pthread_cond_wait(&pool->more, &pool->mtx);
        }
    }
    pthread_mutex_unlock(&pool->mtx);
}

enum weir_status
weir_pool_new(const char *name, unsigned threads, struct weir_pool **out)
{
    struct weir_pool *pool = calloc(1, sizeof *pool + threads * sizeof(struct weir_thread *));
    if (!pool)
        return WEIR_NO_MEMORY;
    pthread_mutex_init(&pool->mtx, NULL);
    pthread_cond_init(&pool->more, NULL);
    weir_list_init(&pool->jobs);
    for (; pool->threads < threads; pool->threads++) {
        enum weir_status st = weir_thread_start(name, work, pool, &pool->thread[pool->threads]);
        if (st) {
            weir_pool_free(pool);
            return st;
        }
    }
    *out = pool;
    return WEIR_OK;
}

void
weir_pool_submit(struct weir_pool *pool, struct weir_loop *loop, struct weir_job *job)
{
    WEIR_ASSERT(weir_loop_is_current(loop));
    WEIR_ASSERT(!weir_list_is_linked(&job->node));
    job->loop = loop;
    if (!pool->threads) {
        weir_loop_run_inline(loop, job);
        return;
    }
    pthread_mutex_lock(&pool->mtx);
    weir_list_push_back(&pool->jobs, &job->node);
    pthread_cond_signal(&pool->more);
    pthread_mutex_unlock(&pool->mtx);
}

void
weir_pool_free(struct weir_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->mtx);
    pool->ending = true;
    pthread_cond_broadcast(&pool->more);
    pthread_mutex_unlock(&pool->mtx);
    for (unsigned i = 0; i < pool->threads; i++)
        weir_thread_join(pool->thread[i]);
    pthread_cond_destroy(&pool->more);
    pthread_mutex_destroy(&pool->mtx);
    free(pool);
}
