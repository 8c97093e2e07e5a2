/* libcudart without a GPU: device memory is memory of the host, and kernels do nothing.
 *
 * What ONNX Runtime's CUDA provider learns from it is real: which kernels it has, how it splits,
 * fuses and binds a graph, how much memory it asks for, what a CUDA graph refuses. What it computes
 * means nothing. Functions that are not here are written by build.py: they are counted and succeed.
 */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "count.h"

/* --- counters: calls.py reads them ------------------------------------------------------------ */

#define MOST_NAMES 512
static struct { const char *name; long calls, captured; } counters[MOST_NAMES];
static cudaStream_t capturing; /* the stream whose work is recorded instead of done, or NULL */

int fake_cuda_counter(const char *name) {
    int i = 0;
    while (i < MOST_NAMES - 1 && counters[i].name && strcmp(counters[i].name, name)) i++;
    counters[i].name = name;
    return i;
}
void fake_cuda_count(int i) {
    __atomic_fetch_add(capturing ? &counters[i].captured : &counters[i].calls, 1, __ATOMIC_RELAXED);
}
/* The name, the calls and the captured calls of a counter; NULL after the last one. */
const char *fake_cuda_read(int i, long *calls, long *captured) {
    *calls = counters[i].calls, *captured = counters[i].captured;
    return counters[i].name;
}
void fake_cuda_reset(void) {
    for (int i = 0; i < MOST_NAMES; i++) counters[i].calls = counters[i].captured = 0;
}

/* --- errors, and what CUDA refuses while a stream is captured --------------------------------- */

static cudaError_t last_error;
static int capture_is_broken;

static cudaError_t fail(cudaError_t error) { return last_error = error; }
#define NOT_WHILE_CAPTURING                                              \
    if (capturing) {                                                     \
        fprintf(stderr, "fake CUDA: %s inside a capture\n", __func__);   \
        capture_is_broken = 1;                                           \
        return fail(cudaErrorStreamCaptureUnsupported);                  \
    }

cudaError_t cudaPeekAtLastError(void) { return last_error; }
cudaError_t cudaGetLastError(void) { cudaError_t e = last_error; last_error = 0; return e; }
const char *cudaGetErrorName(cudaError_t e) {
    return e == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
         : e == cudaErrorStreamCaptureUnsupported ? "cudaErrorStreamCaptureUnsupported"
         : e == cudaErrorStreamCaptureInvalidated ? "cudaErrorStreamCaptureInvalidated" : "fake";
}
const char *cudaGetErrorString(cudaError_t e) {
    return e == cudaErrorMemoryAllocation ? "out of memory" : cudaGetErrorName(e);
}

/* --- the device: sm_90, as an H200 ------------------------------------------------------------ */

cudaError_t cudaGetDeviceCount(int *n) { return *n = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int *n) { return *n = 0, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *v) { return *v = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *v) { return *v = CUDART_VERSION, cudaSuccess; }

/* FAKE_CUDA_MEMORY: bytes of the device, 140 GiB unless it is set. */
size_t fake_cuda_device_bytes(void) {
    const char *set = getenv("FAKE_CUDA_MEMORY");
    return set ? strtoull(set, NULL, 10) : 140ull << 30;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "fake CUDA device");
    p->major = 9, p->minor = 0, p->multiProcessorCount = 132, p->warpSize = 32;
    p->totalGlobalMem = fake_cuda_device_bytes(), p->l2CacheSize = 60 << 20;
    p->sharedMemPerBlock = 48 << 10, p->sharedMemPerBlockOptin = 227 << 10;
    p->sharedMemPerMultiprocessor = 228 << 10, p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 << 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 << 10; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 228 << 10; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    default: *value = 1;
    }
    return cudaSuccess;
}

/* --- memory: mapped when touched, so a plan for 140 GiB fits a small machine ------------------ */

#define MOST_BLOCKS 65536
static struct block { char *start; size_t bytes; int pinned; } blocks[MOST_BLOCKS];
static long device_bytes, device_peak;

/* Bytes of device memory in use and the most there were since the last reset. */
void fake_cuda_memory(long *now, long *peak) { *now = device_bytes, *peak = device_peak; }
void fake_cuda_reset_peak(void) { device_peak = device_bytes; }

static struct block *block_of(const void *address) {
    for (struct block *b = blocks; b < blocks + MOST_BLOCKS; b++)
        if (b->start && b->start <= (char *)address && (char *)address < b->start + b->bytes) return b;
    return NULL;
}
static cudaError_t allocate(void **address, size_t bytes, int pinned) {
    struct block *b = blocks;
    bytes = bytes ? bytes : 1;
    if (!pinned && device_bytes + bytes > fake_cuda_device_bytes()) return fail(cudaErrorMemoryAllocation);
    while (b->start) if (++b == blocks + MOST_BLOCKS) return fail(cudaErrorMemoryAllocation);
    *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*address == MAP_FAILED) return fail(cudaErrorMemoryAllocation);
    *b = (struct block){*address, bytes, pinned};
    if (!pinned) device_bytes += bytes;
    if (device_bytes > device_peak) device_peak = device_bytes;
    return cudaSuccess;
}
static cudaError_t release(void *address) {
    struct block *b = address ? block_of(address) : NULL;
    if (!b) return address ? fail(cudaErrorInvalidValue) : cudaSuccess;
    if (!b->pinned) device_bytes -= b->bytes;
    munmap(b->start, b->bytes);
    b->start = NULL;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void **p, size_t n) { COUNT; NOT_WHILE_CAPTURING; return allocate(p, n, 0); }
cudaError_t cudaFree(void *p) { COUNT; NOT_WHILE_CAPTURING; return release(p); }
cudaError_t cudaMallocFromPoolAsync(void **p, size_t n, cudaMemPool_t m, cudaStream_t s) {
    COUNT; return allocate(p, n, 0);
}
cudaError_t cudaFreeAsync(void *p, cudaStream_t s) { COUNT; return release(p); }
cudaError_t cudaMallocHost(void **p, size_t n) { COUNT; NOT_WHILE_CAPTURING; return allocate(p, n, 1); }
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned f) {
    COUNT; NOT_WHILE_CAPTURING; return allocate(p, n, 1);
}
cudaError_t cudaFreeHost(void *p) { COUNT; NOT_WHILE_CAPTURING; return release(p); }
cudaError_t cudaMemGetInfo(size_t *free, size_t *all) {
    *all = fake_cuda_device_bytes(), *free = *all - device_bytes;
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
    struct block *b = block_of(p);
    memset(a, 0, sizeof *a);
    a->type = !b ? cudaMemoryTypeUnregistered : b->pinned ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    if (b) a->devicePointer = (void *)p;
    if (b && b->pinned) a->hostPointer = (void *)p;
    return cudaSuccess;
}

/* --- copies: real ones, counted by direction; recorded alone while a stream is captured ------- */

static void count_copy(const char *how, const void *to, const void *from) {
    static const char *ways[] = {"cudaMemcpyAsync host-to-host", "cudaMemcpyAsync host-to-device",
        "cudaMemcpyAsync device-to-host", "cudaMemcpyAsync device-to-device",
        "cudaMemcpy host-to-host", "cudaMemcpy host-to-device", "cudaMemcpy device-to-host",
        "cudaMemcpy device-to-device"};
    struct block *t = block_of(to), *f = block_of(from);
    int way = (t && !t->pinned) + 2 * (f && !f->pinned) + (*how == 's' ? 4 : 0);
    fake_cuda_count(fake_cuda_counter(ways[way]));
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind k) {
    count_copy("synchronous", to, from);
    NOT_WHILE_CAPTURING;
    memmove(to, from, n);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind k,
                            cudaStream_t s) {
    count_copy("asynchronous", to, from);
    if (!capturing) memmove(to, from, n);
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t rows, enum cudaMemcpyKind k, cudaStream_t s) {
    count_copy("asynchronous", to, from);
    for (size_t i = 0; i < rows && !capturing; i++)
        memmove((char *)to + i * to_pitch, (char *)from + i * from_pitch, width);
    return cudaSuccess;
}
cudaError_t cudaMemset(void *p, int v, size_t n) { COUNT; memset(p, v, n); return cudaSuccess; }
cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s) {
    COUNT;
    if (!capturing) memset(p, v, n);
    return cudaSuccess;
}

/* --- streams and CUDA graphs ------------------------------------------------------------------ */

static uintptr_t handles = 16; /* one number for each stream, event and graph; never dereferenced */

cudaError_t cudaStreamCreate(cudaStream_t *s) { COUNT; return *s = (void *)++handles, cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f) {
    COUNT; return *s = (void *)++handles, cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) { COUNT; NOT_WHILE_CAPTURING; return cudaSuccess; }
cudaError_t cudaDeviceSynchronize(void) { COUNT; NOT_WHILE_CAPTURING; return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { COUNT; NOT_WHILE_CAPTURING; return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    COUNT; return *ms = 0, cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t call, void *data) {
    COUNT;
    if (!capturing) call(data);
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *status) {
    *status = s && s == capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode) {
    COUNT;
    capturing = s, capture_is_broken = 0;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph) {
    capturing = NULL;
    COUNT;
    *graph = capture_is_broken ? NULL : (void *)++handles;
    return capture_is_broken ? fail(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long flags) {
    COUNT; return *e = (void *)++handles, cudaSuccess;
}

/* --- kernels ---------------------------------------------------------------------------------- */

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *kernel) {
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024, a->binaryVersion = a->ptxVersion = 90;
    a->maxDynamicSharedSizeBytes = 227 << 10;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *blocks_a_processor, const void *kernel, int threads, size_t shared, unsigned flags) {
    return *blocks_a_processor = 1, cudaSuccess;
}
void **__cudaRegisterFatBinary(void *binary) { static void *handle[4]; return handle; }
static int no_driver_function(void) { return 0; }
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
    unsigned long long flags, enum cudaDriverEntryPointQueryResult *found) {
    *function = (void *)no_driver_function;
    if (found) *found = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
