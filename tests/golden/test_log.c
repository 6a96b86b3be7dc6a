/* Segments as version 1 wrote them: one sealed, one in use. */
#include "../unit/log/rig.h"
#include "fsck/fsck.h"
#include <stdio.h>
#include <stdlib.h>

static void
place(struct rig *r, const char *golden, const char *name)
{
    const char *root = getenv("WEIR_SOURCE_DIR");
    static uint8_t bytes[65536];
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/%s", root ? root : ".", golden);
    FILE *f = fopen(path, "r");
    cr_assert(f != NULL, "cannot open '%s'", path);
    size_t len = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    struct weir_file *file;
    OK(weir_fs_mkdir(weir_memfs_fs(r->disk), "journal-0"));
    OK(weir_fs_open(weir_memfs_fs(r->disk), name, WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &file));
    OK(weir_file_pwrite(file, bytes, len, 0));
    OK(weir_file_datasync(file));
    weir_file_close(file);
}

/* Batches, boundaries, chains and producers come back, from the footer and from the walk. */
Test(golden, reads_segments_of_version_1)
{
    struct rig r;
    struct weir_log_shard s;
    struct weir_fsck_totals totals;
    uint64_t number, offset;
    rig_init(&r);
    r.config.directory = "journal-0";
    r.config.journal = 0;
    r.config.producer_expiry_ms = 1000 * 3600 * 1000ull;
    place(&r, "segment-sealed-v1.bin", "journal-0/00000001.seg");
    place(&r, "segment-open-v1.bin", "journal-0/00000002.seg");
    OK(weir_fsck_verify(weir_memfs_fs(r.disk), NULL, NULL, &totals, NULL, NULL));
    cr_expect(totals.segments == 2 && totals.sealed_segments == 1);
    cr_expect(totals.batches == 6 && totals.state_batches == 1 && totals.records == 7);

    rig_open(&r);
    cr_expect(r.report.damaged_count == 0 && weir_log_epoch(r.log) == 2);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(weir_log_shard_add(r.log, 1, 11, 0, 0));
    OK(weir_log_shard_get(r.log, 10, &s));
    cr_expect(s.oldest == 2 && s.next == 4);
    EXPECT_SHARD(&r, 10, 2, 1, 2);
    EXPECT_SHARD(&r, 11, 0, 0, 3);
    OK(weir_log_producer(r.log, 11, 42, &number));
    cr_expect(number == 3);
    IS(rig_put_as(&r, 11, 1, 42, 2, &offset), WEIR_DUPLICATE);
    cr_expect(offset == 1);
    rig_fini(&r);
}
