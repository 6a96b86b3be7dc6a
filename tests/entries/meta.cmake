weir_test(unit meta SOURCES unit/meta/test_table.c unit/meta/test_faults.c unit/meta/test_damage.c
    NEEDS meta memfs TIMEOUT 600)
weir_fuzz(wal SOURCES fuzz/fuzz_wal.c NEEDS meta memfs)
