/* A whole broker in one test: service and native door over a disk in memory, inproc connections and
 * a clock that the test owns; and a client that speaks raw frames, also wrong ones. Everything is
 * stepped: nothing runs unless the test says so. */
#pragma once
#include "native/native.h"
#include "record/hash_key.h"
#include "sys/memfs.h"
#include "wire/message.h"
#include <criterion/criterion.h>

#define OK(call) cr_assert_eq((call), WEIR_OK, "%s", #call)
#define START_MS 1764320000000u
#define HOUR_MS 3600000u

struct broker {
    struct weir_memfs *disk;
    struct weir_clock_manual clock;
    struct weir_pool *pool;
    struct weir_sys sys;
    struct weir_loop *clients; /* the clients' side of connections */
    struct weir_service_config config;
    struct weir_native_options options;
    struct weir_service *service;
    struct weir_native *native;
    struct weir_list raws; /* connected clients; stop closes their connections */
    char last_log[1024];   /* of level 5 and more urgent */
    char url[64];
};
void broker_init(struct broker *b);  /* settings may be changed then */
void broker_start(struct broker *b); /* on what is on the disk */
void broker_stop(struct broker *b);
void broker_fini(struct broker *b);
/* As after a power cut now: what was not synced is gone. */
void broker_crash(struct broker *b);
void broker_step(struct broker *b);
void broker_advance(struct broker *b, uint64_t ms); /* in steps, with all that is due */

struct raw_frame {
    struct weir_list node;
    struct weir_buf *buf;
    struct weir_frame frame;
};
struct raw {
    struct broker *broker;
    struct weir_list node; /* broker->raws */
    struct weir_conn *conn;
    struct weir_list frames; /* received and not yet looked at */
    uint64_t calls;
    uint64_t last_number; /* of the producer opened last, 0 where not known */
    bool closed, deaf;    /* deaf: it stops reading after the next message */
    bool keep_pings;      /* else they are answered, and not seen */
};
struct raw *raw_connect(struct broker *b); /* no HELLO yet */
struct raw *raw_open(struct broker *b);    /* with HELLO and WELCOME */
void raw_close(struct raw *r);             /* NULL is allowed */
/* Sends bytes as they are. */
void raw_send_bytes(struct raw *r, struct weir_bytes bytes);
/* A frame and, in `body`, what stands behind it. */
void raw_send(struct raw *r, const struct weir_frame *frame, struct weir_bytes body);
void raw_send_message(struct raw *r, const struct weir_frame *frame, const ProtobufCMessage *m);
/* The next frame, after a step, which must be of that kind. Freed by raw_frame_free. */
struct raw_frame *raw_expect(struct raw *r, enum weir_frame_kind kind);
/* The next frame, or NULL. */
struct raw_frame *raw_next(struct raw *r);
void raw_frame_free(struct raw_frame *f);
/* Sends the request and steps until its reply; frames of other kinds stay. Freed by
 * weir_message_free. */
Weir__Reply *raw_call(struct raw *r, const Weir__Request *request);
/* The same; only the status, which is all that many tests ask for. */
enum weir_status raw_ask(struct raw *r, const Weir__Request *request);

/* ---- calls, by name ---- */

enum weir_status raw_create(struct raw *r, const char *stream, uint32_t shards);
enum weir_status raw_split(struct raw *r, const char *stream, uint32_t shard);
/* The channel. */
uint32_t raw_producer(struct raw *r, const char *stream, uint32_t shard, weir_u128 producer);
/* A position of that kind, with `offset` where it takes one. */
Weir__Position raw_position(Weir__Position__Kind kind, uint64_t offset);
struct raw_subscription {
    uint32_t channel;
    uint64_t offset, tail;
    bool from_checkpoint;
    enum weir_status st;
    uint64_t reply_offset;
};
struct raw_subscription raw_subscribe(struct raw *r, const char *stream, uint32_t shard,
                                      Weir__Position position, const char *consumer);
void raw_credit(struct raw *r, uint32_t channel, uint64_t bytes, uint64_t frames);

/* ---- records ---- */

/* A batch of `count` records with the key, data "key-0", "key-1" ... */
struct weir_buf *make_batch(const char *key, uint32_t count, weir_u128 producer, uint64_t number);
/* Sends one; the answer is the ACK. */
void raw_produce(struct raw *r, uint32_t channel, const char *key, uint32_t count,
                 weir_u128 producer, uint64_t number);
/* produce, step, and the ACK that must come. */
struct weir_frame raw_put(struct raw *r, uint32_t channel, const char *key, uint32_t count,
                          weir_u128 producer, uint64_t number);
/* A key whose hash lies in the shard of a stream of `shards` equal ones. */
void key_for(uint32_t shard, uint32_t shards, char out[32]);
/* All records that come on DATA frames until nothing more does: their number. Checks that batches
 * are whole and sound and that offsets go on from *next. */
uint64_t raw_drain_data(struct raw *r, uint32_t channel, uint64_t *next);
