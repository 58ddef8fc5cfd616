/* Reads an npz answer without a library: cc read_npz.c -o read_npz; read_npz < rollout.npz

   Prints the name, type and shape of each array, and the numbers of those of float64.
   For processors that are little endian, as nearly all are. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *reason) {
    fprintf(stderr, "read_npz: %s\n", reason);
    exit(1);
}

static uint64_t whole(const unsigned char *at, int bytes) {
    uint64_t value = 0;
    memcpy(&value, at, bytes);
    return value;
}

/* Prints one array; `npy` has `size` bytes. */
static void show(const char *name, int length, const unsigned char *npy, size_t size) {
    if (size < 10 || memcmp(npy, "\x93NUMPY\1\0", 8) != 0) fail("no .npy of version 1.0");
    size_t header = whole(npy + 8, 2);
    if (10 + header > size) fail("a header that is cut off");
    char text[512] = "";
    if (header >= sizeof text) fail("a header that is too long");
    memcpy(text, npy + 10, header);
    char *descr = strstr(text, "'descr': '"), *shape = strstr(text, "'shape': (");
    if (!descr || !shape) fail("a header without descr or shape");
    descr += strlen("'descr': '");
    shape += strlen("'shape': ");
    printf("%.*s %.*s %.*s", length, name, (int)strcspn(descr, "'"), descr,
           (int)strcspn(shape, ")") + 1, shape);
    if (strncmp(descr, "<f8'", 4) == 0) {
        for (size_t at = 10 + header; at + 8 <= size; at += 8) {
            double number;
            memcpy(&number, npy + at, 8);
            printf(" %.17g", number);
        }
    }
    printf("\n");
}

int main(void) {
    size_t size = 0, room = 1 << 20;
    unsigned char *file = malloc(room);
    for (size_t got; file && (got = fread(file + size, 1, room - size, stdin)) > 0;) {
        size += got;
        if (size == room) file = realloc(file, room *= 2);
    }
    if (!file) fail("not enough memory");
    size_t at = 0;
    while (at + 30 <= size && memcmp(file + at, "PK\3\4", 4) == 0) {
        size_t bytes = whole(file + at + 18, 4), name = whole(file + at + 26, 2);
        size_t start = at + 30 + name + whole(file + at + 28, 2);
        if (name < 4 || start + bytes > size) fail("a member that is cut off");
        /* Without its ".npy". */
        show((const char *)file + at + 30, (int)name - 4, file + start, bytes);
        at = start + bytes;
    }
    if (at == 0) fail("no npz");
    free(file);
    return 0;
}
