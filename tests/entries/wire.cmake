# proto/record, proto/wire, proto/transport
weir_test(unit record_batch SOURCES unit/record/test_batch.c NEEDS record)
weir_test(unit record_hash_key SOURCES unit/record/test_hash_key.c NEEDS record)
weir_test(unit record_sequence SOURCES unit/record/test_sequence.c NEEDS record)
weir_test(unit wire_frame SOURCES unit/wire/test_frame.c NEEDS wire)
weir_test(unit wire_message SOURCES unit/wire/test_message.c NEEDS wire)
weir_test(unit transport SOURCES unit/transport/test_transport.c NEEDS transport TIMEOUT 600)
weir_test(unit transport_interop SOURCES unit/transport/test_interop.c NEEDS transport TIMEOUT 300)
