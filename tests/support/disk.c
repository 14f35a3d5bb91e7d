/* A disk that remembers what it was made to keep, loaded into a server with LD_PRELOAD.
 *
 * After each fsync and fdatasync that succeeded, a line "inode size" goes to the file that
 * DISK_LOG names: so much of that file a loss of power leaves. The size is taken before the call,
 * since what is written while it runs may or may not be covered. "inode -1" says that the file was
 * deleted, and its number may come back. While the file that DISK_HOLD names is there, nothing is
 * synced: the disk is slow. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void note(unsigned long inode, long size) {
    const char *path = getenv("DISK_LOG");
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0) abort();
    char line[64];
    int length = snprintf(line, sizeof line, "%lu %ld\n", inode, size);
    if (write(fd, line, length) != length) abort();
    close(fd);
}

static int sync_with(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *hold = getenv("DISK_HOLD");
    struct stat before;
    int is_file = fstat(fd, &before) == 0 && S_ISREG(before.st_mode);
    while (hold && access(hold, F_OK) == 0) usleep(1000);
    int result = real(fd);
    if (result == 0 && is_file) note(before.st_ino, before.st_size);
    return result;
}

int fsync(int fd) { return sync_with("fsync", fd); }

int fdatasync(int fd) { return sync_with("fdatasync", fd); }

int unlink(const char *path) {
    int (*real)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    struct stat before;
    int is_file = stat(path, &before) == 0 && S_ISREG(before.st_mode);
    int result = real(path);
    if (result == 0 && is_file && before.st_nlink == 1) note(before.st_ino, -1);
    return result;
}
