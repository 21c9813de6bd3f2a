// Sorts each block's 256 keys by their bits, ascending, with the places they came from: Batcher's bitonic network in shared memory. The
// last block fills up with keys that sort last. Blocks of 128 threads.

extern "C" __global__ void bitonic_sort(unsigned int *keys, unsigned short *places, int n)
{
    __shared__ unsigned int key[256];
    __shared__ unsigned short place[256];
    int start = blockIdx.x * 256;
    for (int i = threadIdx.x; i < 256; i += 128) {
        key[i] = start + i < n ? keys[start + i] : 0xffffffff;
        place[i] = i;
    }
    for (int size = 2; size <= 256; size *= 2) {
        for (int distance = size / 2; distance > 0; distance /= 2) {
            __syncthreads();
            int low = 2 * threadIdx.x - threadIdx.x % distance, high = low + distance;
            bool descends = low & size;
            bool swaps = key[low] > key[high] || (key[low] == key[high] && place[low] > place[high]);
            if (swaps != descends) {
                unsigned int k = key[low];
                unsigned short p = place[low];
                key[low] = key[high];
                place[low] = place[high];
                key[high] = k;
                place[high] = p;
            }
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += 128) {
        if (start + i < n) {
            keys[start + i] = key[i];
            places[start + i] = place[i];
        }
    }
}
