/* SQLite's way to files: a VFS on sys->fs.
 *
 * One VFS belongs to one table. It knows which of its files is the write-ahead log and remembers
 * what happened to it since weir_meta_vfs_begin(), so that the table can tell what a failed
 * transaction left behind. There are no locks: the data directory has one owner. There is no shared
 * memory: the connection is in exclusive mode.
 *
 * Threads: one at a time. */
#pragma once
#include "base/error.h"
#include "sys/sys.h"
#include <sqlite3.h>

struct weir_meta_vfs {
    sqlite3_vfs vfs;
    struct weir_sys *sys;
    char name[40];
    struct weir_file *wal;    /* NULL: not open */
    enum weir_status failure; /* of the last file call that failed since begin */
    bool wal_sync_failed;
    uint64_t wal_first; /* lowest offset written to the log since begin; UINT64_MAX: none */
};

/* Registers it under a name of its own. NO_MEMORY. */
enum weir_status weir_meta_vfs_init(struct weir_meta_vfs *v, struct weir_sys *sys);
void weir_meta_vfs_fini(struct weir_meta_vfs *v);

void weir_meta_vfs_begin(struct weir_meta_vfs *v);
/* After a transaction that failed and was rolled back: takes its frames out of the log, for good.
 * OK: the disk holds nothing of it. UNKNOWN: it may. */
enum weir_status weir_meta_vfs_undo(struct weir_meta_vfs *v);
