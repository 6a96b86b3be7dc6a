/* A disk in memory that tells the truth about disks.
 *
 * Each write is volatile until datasync of its file; each name until sync_directory. A power cut
 * keeps what was synced and, of the rest, what the test chooses: nothing, everything, or a seeded
 * choice of 512-byte sectors of each unsynced write, in any order. Faults are planned by the number
 * of the call. Any thread; one lock. */
#pragma once
#include "sys/fs.h"
#include "sys/random.h"

struct weir_memfs;

enum weir_memfs_call {
    WEIR_MEMFS_ANY,
    WEIR_MEMFS_OPEN,
    WEIR_MEMFS_READ,
    WEIR_MEMFS_WRITE,
    WEIR_MEMFS_SYNC,
    WEIR_MEMFS_SYNC_DIRECTORY,
    WEIR_MEMFS_TRUNCATE,
    WEIR_MEMFS_RENAME,
    WEIR_MEMFS_REMOVE,
    WEIR_MEMFS_CALLS
};

struct weir_memfs *weir_memfs_new(void);
void weir_memfs_free(struct weir_memfs *m);
struct weir_fs *weir_memfs_fs(struct weir_memfs *m);

/* From now on the n-th call (1 is the next) of that kind answers `st`; a failed write has stored a
 * seeded prefix of its bytes (volatile). `sticky`: so does every later one of that kind. */
void weir_memfs_fail_nth(struct weir_memfs *m, enum weir_memfs_call call, uint64_t n,
                         enum weir_status st, bool sticky);
void weir_memfs_fail_clear(struct weir_memfs *m);
/* Calls of that kind so far. */
uint64_t weir_memfs_calls(struct weir_memfs *m, enum weir_memfs_call call);
/* Bytes that all files together may hold; writes beyond answer NO_SPACE. 0: no limit. */
void weir_memfs_set_capacity(struct weir_memfs *m, uint64_t bytes);

enum weir_memfs_cut { WEIR_MEMFS_KEEP_SYNCED, WEIR_MEMFS_KEEP_ALL, WEIR_MEMFS_KEEP_SOME };
/* The power goes: open files become unusable (IO), locks are free, unsynced state is kept as told.
 */
void weir_memfs_power_cut(struct weir_memfs *m, enum weir_memfs_cut keep, uint64_t seed);
/* A copy of the disk as it would be after such a cut now; the original goes on. For crash search.
 */
struct weir_memfs *weir_memfs_fork(struct weir_memfs *m, enum weir_memfs_cut keep, uint64_t seed);

/* Direct access for tests: NOT_FOUND, INVALID beyond the end. */
enum weir_status weir_memfs_size(struct weir_memfs *m, const char *path, uint64_t *out);
enum weir_status weir_memfs_flip(struct weir_memfs *m, const char *path, uint64_t off,
                                 uint8_t mask);
enum weir_status weir_memfs_truncate(struct weir_memfs *m, const char *path, uint64_t size);
enum weir_status weir_memfs_copy(struct weir_memfs *m, const char *path, uint8_t *out, size_t len,
                                 uint64_t off);
