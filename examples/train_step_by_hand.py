"""Train with the parts of MixUnlearn in a loop of your own: teacher, MixBlock and the losses.

Run ``python examples/train_step_by_hand.py``: about ten seconds, nothing is downloaded.
"""

import copy

import torch

from pymixunlearn import data, evaluation, models, nn, tasks, training
from pymixunlearn.models.features import FeatureExtractor

EPOCHS, BATCH, OMEGA, SHARPEN_T, CPU = 20, 32, 10.0, 0.3, torch.device("cpu")


def main() -> None:
    """Forget the digit 0; your trained model and your images [N, C, H, W] go in the place of these."""
    torch.manual_seed(0)
    split = tasks.class_split(data.load("digits"), [0])
    initial = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
    training.train(initial, split.train, split.preprocess, training.TrainConfig(epochs=5), device=CPU)
    forget, retain = (split.preprocess.evaluation(part.images) for part in (split.forget, split.retain))
    unlearner = copy.deepcopy(initial).train()
    initial.requires_grad_(False)
    teacher = FeatureExtractor(initial)  # one forward gives logits [N, classes] and features [N, C', h, w]
    mixblock = nn.MixBlock(teacher(forget[:1])[1].shape[1])
    generator_loss = nn.GeneratorLoss(tau=0.5, sharpen_T=SHARPEN_T)  # targets: the teacher's logits, sharpened (Eq. 8)
    mix_loss = nn.MixContrastiveLoss(tau=10.0, sharpen_T=SHARPEN_T)
    real_loss = nn.RealContrastiveLoss(tau=2.0, sharpen_T=SHARPEN_T)
    optimizer = torch.optim.Adam(unlearner.parameters(), lr=5e-5)
    generator_optimizer = torch.optim.Adam(mixblock.parameters(), lr=1e-3)
    beta = torch.distributions.Beta(0.75, 0.75)

    for _ in range(EPOCHS):
        batches = zip(torch.randperm(len(forget)).split(BATCH), torch.randperm(len(retain)).split(BATCH), strict=False)
        for step, (of_forget, of_retain) in enumerate(batches):
            x_f, x_r = forget[of_forget], retain[of_retain[: len(of_forget)]]
            with torch.no_grad():
                (target_f, feat_f), (target_r, feat_r) = teacher(x_f), teacher(x_r)
            if step % 4 == 0:  # MixBlock looks for mixes that the unlearner gets wrong (Eq. 3)
                lam = beta.sample()
                loss = generator_loss(unlearner(mixblock(feat_f, feat_r, lam, x_f, x_r)), target_f, target_r, lam)
                generator_optimizer.zero_grad()
                loss.backward(inputs=list(mixblock.parameters()))
                generator_optimizer.step()
            lam = beta.sample()
            with torch.no_grad():
                x_mix = mixblock(feat_f, feat_r, lam, x_f, x_r)
            z_f, z_r, z_mix = unlearner(torch.cat([x_f, x_r, x_mix])).chunk(3)
            # Eq. 7: the loss on mixes (Eq. 5) and the weighted loss on the images themselves (Eq. 6).
            loss = mix_loss(z_mix, target_f, target_r, lam) + OMEGA * real_loss(z_f, z_r, target_f, target_r)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, model in (("initial", initial), ("unlearned", unlearner)):
        metrics = evaluation.evaluate(model, split)
        print(f"{name:9} test_r {metrics['test_r']:6.2f} %  test_f {metrics['test_f']:6.2f} %")


main()
