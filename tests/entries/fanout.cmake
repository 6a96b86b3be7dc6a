weir_test(unit fanout_wheel SOURCES unit/fanout/test_wheel.c NEEDS fanout)
weir_test(unit fanout_frame SOURCES unit/fanout/test_frame.c NEEDS fanout)
weir_test(unit fanout SOURCES unit/fanout/test_fanout.c unit/fanout/desk.c unit/fanout/fake_log.c
    NEEDS fanout)
weir_test(model fanout SOURCES model/test_fanout.c unit/fanout/desk.c unit/fanout/fake_log.c
    NEEDS fanout)
weir_test(unit ingest SOURCES unit/ingest/test_ingest.c unit/fanout/fake_log.c NEEDS ingest)
weir_test(model owner SOURCES model/test_owner.c unit/log/rig.c NEEDS ingest fanout log memfs)
