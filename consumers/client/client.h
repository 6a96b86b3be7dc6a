/* The connection of a client and what shares it: calls, channels, members.
 *
 *   DOWN --timer--> DIALING --connected--> GREETING --WELCOME--> UP
 *     ^                |                      |                  |
 *     +----------------+------ lost, refused -+------------------+
 *
 * A call is one request and its reply. A channel is where a producer's or a subscription's frames
 * of one shard arrive. A member (a producer, a subscription) is told when the connection is made
 * and lost, and makes its channels anew.
 *
 * Threads: everything on the client's loop, except where a comment says "any thread". */
#pragma once
#include "base/map.h"
#include "client/weir.h"
#include "record/hash_key.h"
#include "sys/sys.h"
#include "transport/transport.h"
#include "wire/message.h"
#include <pthread.h>

struct weir_link;

enum weir_client_state {
    WEIR_CLIENT_DOWN,
    WEIR_CLIENT_DIALING,
    WEIR_CLIENT_GREETING,
    WEIR_CLIENT_UP
};

struct weir_channel {
    uint32_t id; /* 0: none */
    void (*frame)(struct weir_channel *channel, const struct weir_frame *frame,
                  struct weir_buf *message);
};

struct weir_member {
    struct weir_list node;
    void (*up)(struct weir_member *member);
    void (*down)(struct weir_member *member, const char *why);
};

struct weir_client {
    char url[256], name[WEIR_CONSUMER_NAME_MAX + 1];
    char *tls_ca;
    bool tls_insecure;
    void (*on_connection)(void *arg, bool connected, const char *text);
    void *arg;
    struct weir_sys sys;
    struct weir_loop *loop;

    /* loop only */
    enum weir_client_state state;
    struct weir_link *link;
    struct weir_task link_task;
    struct weir_timer redial, heartbeat;
    struct weir_random random;
    uint32_t failures; /* since the last WELCOME */
    uint64_t heard_us, heartbeat_us, dead_after_us;
    uint64_t frame_bytes_max;
    bool draining, closing;
    uint64_t drain_until_us;
    uint64_t unanswered; /* PRODUCE frames without their ACK */
    struct weir_list calls, members;
    struct weir_map calls_sent, channels;
    uint64_t next_call;
    char dropped[256]; /* why we closed the present connection */

    /* shared, under mtx */
    pthread_mutex_t mtx;
    pthread_cond_t changed;
    bool is_up;
    enum weir_status refused; /* a refusal that waiting will not cure */
    char broker[256], data_id[64], why[256];
    char broker_out[256]; /* what weir_client_broker() handed out last */
};

/* ---- any thread ---- */

/* Runs fn on the loop and waits for it; on the loop itself at once. */
void weir_client_run(struct weir_client *c, void (*fn)(void *arg), void *arg);
/* A condition variable whose timed waits are against the monotonic clock. */
void weir_cond_init(pthread_cond_t *cond);
/* Waits until `deadline_us` (UINT64_MAX: for ever); false when it passed. */
bool weir_cond_wait(struct weir_client *c, pthread_cond_t *cond, pthread_mutex_t *mtx,
                    uint64_t deadline_us);
/* Moment of a timeout: 0 now, -1 never. */
uint64_t weir_deadline_us(struct weir_client *c, int64_t timeout_ms);

/* ---- calls ---- */

enum weir_call_mode {
    WEIR_CALL_AGAIN, /* sent again on the next connection */
    WEIR_CALL_ONCE,  /* UNKNOWN when the connection breaks before the reply */
    WEIR_CALL_BOUND, /* belongs to this connection: UNAVAILABLE when it breaks or is not there */
};

#define WEIR_CALL_TIMEOUT_MS 30000

struct weir_call {
    enum weir_call_mode mode;
    /* `reply` is the callee's to free, NULL where none came; `text` says why `st` is not OK. The
     * call is no longer used by the client when it is called. */
    void (*done)(struct weir_call *call, enum weir_status st, Weir__Reply *reply, const char *text);
    /* private */
    struct weir_client *client;
    struct weir_list node;
    struct weir_timer timer;
    struct weir_buf *frame;
    uint64_t number;
    bool sent;
};

/* Never calls done from inside. */
void weir_call_start(struct weir_client *c, struct weir_call *call, Weir__Request *request,
                     uint64_t timeout_ms);
/* done does not come any more. One that is not under way is left alone. */
void weir_call_cancel(struct weir_call *call);
static inline bool
weir_call_is_running(const struct weir_call *call)
{
    return weir_list_is_linked(&call->node);
}
/* Any thread but the loop's: waits. *reply_out (may be NULL) is the caller's. */
enum weir_status weir_call_wait(struct weir_client *c, Weir__Request *request,
                                enum weir_call_mode mode, Weir__Reply **reply_out,
                                struct weir_error *err);

/* ---- frames, channels, members ---- */

/* Sends a frame whose body (or NULL) is one shared buffer; takes its own reference. False: not UP,
 * or no memory (then the connection is closed: nothing may be left out of its middle). */
bool weir_client_send(struct weir_client *c, const struct weir_frame *head, struct weir_buf *body);
/* False: the broker gave an id twice or there is no memory; the connection is closed. */
bool weir_channel_open(struct weir_client *c, struct weir_channel *channel, uint32_t id);
/* Forgets it and, with `tell`, tells the broker. */
void weir_channel_close(struct weir_client *c, struct weir_channel *channel, bool tell);
void weir_member_add(struct weir_client *c, struct weir_member *member);
void weir_member_remove(struct weir_member *member);
static inline bool
weir_client_is_up(const struct weir_client *c)
{
    return c->state == WEIR_CLIENT_UP && !c->draining;
}
/* The connection is of no more use: closes it and makes a new one. */
void weir_client_drop(struct weir_client *c, const char *why);
/* base * 2^failures, at most `limit`, of which a random part between half and all. */
uint64_t weir_backoff_us(struct weir_client *c, uint32_t failures, uint64_t base_us,
                         uint64_t limit_us);

/* ---- topology ---- */

struct weir_topology_shard {
    uint32_t index;
    uint64_t number;
    struct weir_hash_range range;
    int32_t parent, adjacent_parent;
    uint64_t created_ms, closed_ms, end;
    uint64_t oldest, next, oldest_at_ms, latest_at_ms, bytes;
};

struct weir_topology {
    char name[WEIR_STREAM_NAME_MAX + 1];
    uint64_t created_ms, retention_ms, retention_bytes, record_bytes_max, version;
    uint32_t status, open_shards;
    size_t count, capacity;
    struct weir_topology_shard *shards; /* by index */
};
void weir_topology_fini(struct weir_topology *t);
const struct weir_topology_shard *weir_topology_find(const struct weir_topology *t, uint32_t index);

/* Describes a stream, page by page; lives until done, which owns the result (zeroed on failure). */
struct weir_describe {
    const char *stream; /* borrowed until done */
    uint32_t first_shard;
    bool with_numbers;
    void (*done)(struct weir_describe *d, enum weir_status st, const char *text);
    struct weir_topology result;
    /* private */
    struct weir_client *client;
    struct weir_call call;
};
void weir_describe_start(struct weir_client *c, struct weir_describe *d);
void weir_describe_cancel(struct weir_describe *d);
/* Any thread but the loop's. */
enum weir_status weir_describe_wait(struct weir_client *c, const char *stream, bool with_numbers,
                                    struct weir_topology *out, struct weir_error *err);
