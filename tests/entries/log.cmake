weir_test(unit log SOURCES unit/log/test_log.c unit/log/rig.c NEEDS log memfs)
