/* Counts and Hausdorff95 of up to eight regions in two label images: the same bits as counts.py and hausdorff.py.
 *
 * The idea, in the order of the code:
 *
 * 1. Tumours fill about one percent of an image. One pass finds the image rows that hold any label ("rows" run along
 *    the axis that is contiguous in memory) and packs each into bits, one bit row per region. The image itself is not
 *    needed after that: its memory can take the next image, and all the rest works on these few rows.
 * 2. Counts are popcounts; a surface is a handful of shifts and ands with the rows above, below, before and behind.
 * 3. The distance from one point: the other surface's rows in order of their distance, until no row can be nearer;
 *    in each row the nearest bit. Where that leads too far, tiles of 8x8 rows with their bounding boxes take over.
 * 4. Hausdorff95 needs one or two ranks, not all distances. A voxel in both surfaces has distance 0. Of the others a
 *    sample is measured to guess a bracket around the wanted rank. A point that has any element of the other surface
 *    nearer than the bracket is only counted, which a few masks on bit rows tell. Points near a measured one get bounds
 *    from it (triangle inequality). Only where bounds straddle the wanted ranks a point is measured itself. Should
 *    the bracket turn out too high, all is done again with a lower one: a sample can cost time, never exactness.
 *
 * Squared distances are sums of (step * spacing)^2, added from the left in array-axis order, so that every value is
 * the double which MedPy's formula gives (build with -ffp-contract=off). Bounds use the same sums over shorter steps:
 * rounding is monotone, so a bound never exceeds the values it stands for.
 */
#include "ranks.h"
#include "voxels.h"

#ifndef SOURCE_DIGEST
#define SOURCE_DIGEST "unknown"
#endif

/* Tells the loader which sources this was built from, so that a stale library is never used. */
const char *metrics_digest(void) { return SOURCE_DIGEST; }

/* Score two packed images (`metrics_pack`).
 *
 * bits, numbers, rows  of reference and prediction
 * shape, spacing       along the contiguous, the middle and the slowest axis
 * wanted               0 counts only, 1 also definition P, 2 also definition D
 * counts               per region: voxels in both, in the reference, in the prediction
 * distances            per region: P and D in mm; left alone where a mask is empty
 * Returns 0, or 1 where memory is short.
 */
int metrics_score(const uint64_t *bits[2], const int32_t *numbers[2], const int64_t rows[2], int regions,
                  const int64_t shape[3], const double spacing[3], int contiguous_first, int wanted, int64_t *counts,
                  double *distances)
{
    Scene scene;
    int failed = make_scene(&scene, shape, regions, spacing, contiguous_first);
    for (int m = 0; m < 2 && !failed; m++) failed = make_image(&scene, &scene.images[m], bits[m], numbers[m], rows[m]);
    if (!failed) {
        find_box(&scene);
        make_ring(&scene, spacing);
    }
    uint64_t *room = NULL;
    for (int r = 0; r < regions && !failed; r++) {
        count_region(&scene, r, counts + 3 * r);
        if (!wanted || !counts[3 * r + 1] || !counts[3 * r + 2]) continue;
        if (!room) room = calloc(2 * (size_t)scene.room, sizeof *room);
        failed = !room || score_region(&scene, r, wanted > 1, room, distances + 2 * r);
    }
    free(room);
    free_scene(&scene);
    return failed ? NO_MEMORY : DONE;
}
