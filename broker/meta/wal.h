/* SQLite's write-ahead log, looked at before SQLite does.
 *
 * SQLite takes the log up to the first frame that does not hold its checksum, and forgets the rest
 * without a word. That is right for a transaction that a crash tore, and silent loss where a byte
 * was damaged in one that was committed. */
#pragma once
#include "base/error.h"
#include "sys/fs.h"

/* Cuts a torn end off the log at `path`, durably; a missing or empty log is fine. DAMAGED: behind a
 * frame that is not sound lie transactions that were committed; the log is left as it is. Also
 * NO_MEMORY and what the disk answers. */
enum weir_status weir_meta_wal_check(struct weir_fs *fs, const char *path, struct weir_error *err);
