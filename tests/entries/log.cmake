weir_test(unit log SOURCES unit/log/test_log.c unit/log/rig.c NEEDS log memfs)
weir_test(unit log_producers SOURCES unit/log/test_producers.c NEEDS log)
weir_test(unit log_crash SOURCES unit/log/test_crash.c unit/log/rig.c NEEDS log memfs TIMEOUT 600)
weir_test(unit log_keep SOURCES unit/log/test_keep.c unit/log/rig.c NEEDS log memfs TIMEOUT 600)
