/* A part: the file that an object is made in, with its hashes taken on the way, compressed where
 * asked.
 *
 * The same writes give the same bytes: compression sees its input in pieces of one fixed size.
 *
 * Threads: one. */
#pragma once
#include "base/error.h"
#include "sys/fs.h"

struct weir_part;

/* Makes the file anew. */
enum weir_status weir_part_open(struct weir_fs *fs, const char *path, bool gzip,
                                struct weir_part **out);
/* After a failure the part is unusable: abandon it. */
enum weir_status weir_part_write(struct weir_part *p, struct weir_bytes bytes);
/* Completes and syncs the file, says what it is, and frees the part in every case. */
enum weir_status weir_part_finish(struct weir_part *p, uint64_t *size_out, char sha256[65],
                                  char md5[33]);
/* The file stays as it is; NULL is allowed. */
void weir_part_abandon(struct weir_part *p);
/* What a file is. END: it is not `size` bytes long. */
enum weir_status weir_part_hash(struct weir_fs *fs, const char *path, uint64_t *size_out,
                                char sha256[65]);
