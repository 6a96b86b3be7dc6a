#include "sink/part.h"
#include "base/text.h"
#include <openssl/evp.h>
#include <stdlib.h>
#include <zlib.h>

#define PIECE 65536

struct weir_part {
    struct weir_file *file;
    uint64_t written;
    bool gzip, failed;
    EVP_MD_CTX *sha256, *md5;
    z_stream z;
    size_t fill;
    uint8_t input[PIECE], output[PIECE];
};

void
weir_part_abandon(struct weir_part *p)
{
    if (!p)
        return;
    if (p->gzip)
        deflateEnd(&p->z);
    EVP_MD_CTX_free(p->sha256);
    EVP_MD_CTX_free(p->md5);
    weir_file_close(p->file);
    free(p);
}

enum weir_status
weir_part_open(struct weir_fs *fs, const char *path, bool gzip, struct weir_part **out)
{
    struct weir_part *p = calloc(1, sizeof *p);
    enum weir_status st = WEIR_NO_MEMORY;
    if (!p)
        return st;
    p->sha256 = EVP_MD_CTX_new();
    p->md5 = EVP_MD_CTX_new();
    if (!p->sha256 || !p->md5 || EVP_DigestInit_ex(p->sha256, EVP_sha256(), NULL) != 1 ||
        EVP_DigestInit_ex(p->md5, EVP_md5(), NULL) != 1)
        goto done;
    /* Level 6, a gzip header without name and time. */
    if (gzip && deflateInit2(&p->z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        goto done;
    p->gzip = gzip;
    st = weir_fs_open(fs, path, WEIR_OPEN_WRITE | WEIR_OPEN_CREATE | WEIR_OPEN_TRUNCATE, &p->file);
    if (st)
        goto done;
    *out = p;
    p = NULL;
done:
    weir_part_abandon(p);
    return st;
}

static enum weir_status
put_out(struct weir_part *p, const uint8_t *data, size_t len)
{
    if (len == 0)
        return WEIR_OK;
    enum weir_status st = weir_file_pwrite(p->file, data, len, p->written);
    if (st)
        return st;
    EVP_DigestUpdate(p->sha256, data, len);
    EVP_DigestUpdate(p->md5, data, len);
    p->written += len;
    return WEIR_OK;
}

/* Sends the collected piece on its way. */
static enum weir_status
drain(struct weir_part *p, bool last)
{
    enum weir_status st = WEIR_OK;
    if (!p->gzip) {
        st = put_out(p, p->input, p->fill);
    } else {
        p->z.next_in = p->input;
        p->z.avail_in = (uInt)p->fill;
        do {
            p->z.next_out = p->output;
            p->z.avail_out = PIECE;
            deflate(&p->z, last ? Z_FINISH : Z_NO_FLUSH);
            st = put_out(p, p->output, PIECE - p->z.avail_out);
        } while (!st && p->z.avail_out == 0);
    }
    p->fill = 0;
    p->failed |= st != WEIR_OK;
    return st;
}

enum weir_status
weir_part_write(struct weir_part *p, struct weir_bytes bytes)
{
    if (p->failed)
        return WEIR_IO;
    while (bytes.len) {
        size_t n = PIECE - p->fill;
        if (n > bytes.len)
            n = bytes.len;
        memcpy(p->input + p->fill, bytes.data, n);
        p->fill += n;
        bytes = weir_bytes(bytes.data + n, bytes.len - n);
        if (p->fill == PIECE) {
            enum weir_status st = drain(p, false);
            if (st)
                return st;
        }
    }
    return WEIR_OK;
}

enum weir_status
weir_part_finish(struct weir_part *p, uint64_t *size_out, char sha256[65], char md5[33])
{
    uint8_t hash[32];
    unsigned len;
    enum weir_status st = p->failed ? WEIR_IO : drain(p, true);
    if (!st)
        st = weir_file_datasync(p->file);
    if (!st) {
        EVP_DigestFinal_ex(p->sha256, hash, &len);
        weir_hex_encode(weir_bytes(hash, 32), sha256);
        EVP_DigestFinal_ex(p->md5, hash, &len);
        weir_hex_encode(weir_bytes(hash, 16), md5);
        *size_out = p->written;
    }
    weir_part_abandon(p);
    return st;
}

enum weir_status
weir_part_hash(struct weir_fs *fs, const char *path, uint64_t *size_out, char sha256[65])
{
    struct weir_file *file;
    enum weir_status st = weir_fs_open(fs, path, WEIR_OPEN_READ, &file);
    if (st)
        return st;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t *piece = malloc(PIECE), hash[32];
    uint64_t size = 0;
    size_t got = 0;
    unsigned len;
    if (!ctx || !piece || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1)
        st = WEIR_NO_MEMORY;
    while (!st && !(st = weir_file_pread(file, piece, PIECE, size, &got)) && got) {
        EVP_DigestUpdate(ctx, piece, got);
        size += got;
    }
    if (!st) {
        EVP_DigestFinal_ex(ctx, hash, &len);
        weir_hex_encode(weir_bytes(hash, 32), sha256);
        *size_out = size;
    }
    free(piece);
    EVP_MD_CTX_free(ctx);
    weir_file_close(file);
    return st;
}
