weir_test(unit sink_exporter SOURCES unit/sink/test_exporter.c NEEDS sink demo memfs TIMEOUT 300)
weir_test(unit weir_key SOURCES unit/weir/test_key.c ../consumers/weir/key.c NEEDS base json record)
