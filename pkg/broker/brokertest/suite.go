// Package brokertest is the contract of package broker as tests: whatever implements broker.Broker
// runs them and passes.
//
//	func TestContract(t *testing.T) {
//		brokertest.Run(t, brokertest.Suite{Connect: func(t *testing.T) brokertest.Harness { ... }})
//	}
package brokertest

import (
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// Harness reaches the broker under test. Every field but Quiet is needed.
type Harness struct {
	// Broker returns a way to the broker as a process of its own would have it. All of one
	// harness reach the same broker. They are used until the test ends.
	Broker func() broker.Broker

	// Cut ends the transport below a link that one of Broker's made, as a fault of the network or
	// of the broker would. It need not wait for the link to notice.
	Cut func(t *testing.T, l broker.Link)

	// Restart restarts the broker, and returns when it can be joined again. Its durable queues
	// and messages survive.
	Restart func(t *testing.T)

	// Limited names a server whose mailbox in this broker takes, once it exists, at most so many
	// messages (1 to 1,000) while nobody reads them. Each call names another.
	Limited func() (s socketmeta.ServerID, messages int)

	// Quiet is how long a test waits before it believes that nothing more arrives; 0 means 50 ms.
	Quiet time.Duration
}

// Suite says how to run the tests against one implementation.
type Suite struct {
	// Connect is called once for each subtest. It may return the same broker again: the names of
	// identities, mailboxes and kinds are unique to each subtest.
	Connect func(t *testing.T) Harness

	// Within runs the body of each subtest, Connect included: synctest.Test for a broker that
	// lives in this process. Nil runs it as it is.
	Within func(t *testing.T, body func(t *testing.T))
}

// Run tests the contract, one subtest for each promise, one after the other.
func Run(t *testing.T, s Suite) {
	if s.Within == nil {
		s.Within = func(t *testing.T, body func(*testing.T)) { body(t) }
	}
	for _, promise := range promises {
		t.Run(promise.name, func(t *testing.T) {
			s.Within(t, func(t *testing.T) { promise.test(newCase(t, s.Connect(t))) })
		})
	}
}

var promises = []struct {
	name string
	test func(*testCase)
}{
	{"JoinTakesTheLock", joinTakesTheLock},
	{"CloseFreesTheLock", closeFreesTheLock},
	{"CutFreesTheLock", cutFreesTheLock},
	{"GenerationsRise", generationsRise},
	{"ContextBoundsOnlyTheJoining", contextBoundsOnlyTheJoining},
	{"CloseEndsTheLink", closeEndsTheLink},
	{"CutEndsTheLink", cutEndsTheLink},
	{"RestartKeepsWhatWasStored", restartKeepsWhatWasStored},

	{"MessageArrivesAsItWasSent", messageArrivesAsItWasSent},
	{"PublishKeepsNothingOfTheMessage", publishKeepsNothingOfTheMessage},
	{"MessageOverTheLimitIsNotSent", messageOverTheLimitIsNotSent},
	{"HeaderOfAnotherTypeIsNotSent", headerOfAnotherTypeIsNotSent},
	{"TaskOfUnknownKindIsReturned", taskOfUnknownKindIsReturned},
	{"ControlOfNobodyIsReturned", controlOfNobodyIsReturned},
	{"EventForUnknownMailboxIsParked", eventForUnknownMailboxIsParked},
	{"DeadQueuesTakeWhatIsGivenUp", deadQueuesTakeWhatIsGivenUp},
	{"FullMailboxRefusesAndOthersFlow", fullMailboxRefusesAndOthersFlow},
	{"ThousandGoroutinesPublishOnOneLink", thousandGoroutinesPublishOnOneLink},
	{"CloseWaitsForReceipts", closeWaitsForReceipts},
	{"CutLeavesNoReceiptPending", cutLeavesNoReceiptPending},

	{"MailboxHasOneOwner", mailboxHasOneOwner},
	{"MailboxOutlivesItsOwner", mailboxOutlivesItsOwner},
	{"PrefetchBoundsUnsettledDeliveries", prefetchBoundsUnsettledDeliveries},
	{"ManyAreSettledAtOnce", manyAreSettledAtOnce},
	{"PrefetchOutOfRangeIsAnError", prefetchOutOfRangeIsAnError},
	{"CloseRedeliversInOrder", closeRedeliversInOrder},
	{"CutRedeliversInOrder", cutRedeliversInOrder},
	{"OldTagSettlesNothing", oldTagSettlesNothing},
	{"MailboxIsNotRequeued", mailboxIsNotRequeued},
	{"PauseKeepsOrderAndLosesNothing", pauseKeepsOrderAndLosesNothing},
	{"PauseKeepsTheOwnership", pauseKeepsTheOwnership},

	{"AdoptionMakesNothing", adoptionMakesNothing},
	{"OwnedMailboxIsNotAdopted", ownedMailboxIsNotAdopted},
	{"AdopterGetsWhatWasUnsettledInOrder", adopterGetsWhatWasUnsettledInOrder},
	{"ControlReachesTheAdopter", controlReachesTheAdopter},

	{"OverflowGoesWithItsMailbox", overflowGoesWithItsMailbox},
	{"TakeHeldIsBounded", takeHeldIsBounded},
	{"UnsettledHeldComeAgainInOrder", unsettledHeldComeAgainInOrder},

	{"MailboxOfALivingWorkerIsNotUnbound", mailboxOfALivingWorkerIsNotUnbound},
	{"UnboundMailboxGetsNothingNew", unboundMailboxGetsNothingNew},
	{"OnlyAnEmptyMailboxIsDeleted", onlyAnEmptyMailboxIsDeleted},
	{"OverflowIsNotDeletedEither", overflowIsNotDeletedEither},
	{"DeletedMailboxIsGone", deletedMailboxIsGone},
	{"ReturningWorkerBindsAgain", returningWorkerBindsAgain},
	{"RetirementIsBegunAgain", retirementIsBegunAgain},
	{"RetiringLosesNothing", retiringLosesNothing},

	{"SlotsBoundTasksOverAllKinds", slotsBoundTasksOverAllKinds},
	{"TakerKeepsNoTaskFromOthers", takerKeepsNoTaskFromOthers},
	{"TakersShareTasks", takersShareTasks},
	{"WaitingCountsWhatNobodyHas", waitingCountsWhatNobodyHas},
	{"RequeueRaisesTheAttempt", requeueRaisesTheAttempt},
	{"TaskOfGoneTakerIsTakenAgain", taskOfGoneTakerIsTakenAgain},
	{"TasksWaitForATaker", tasksWaitForATaker},
	{"PausedTakerTakesNothing", pausedTakerTakesNothing},
	{"HighPriorityIsTakenFirst", highPriorityIsTakenFirst},
	{"HighPriorityWaitsForASlotOnly", highPriorityWaitsForASlotOnly},
	{"KindsOfOnePriorityTakeTurns", kindsOfOnePriorityTakeTurns},
	{"WaitingCountsWhatIsTakenBefore", waitingCountsWhatIsTakenBefore},

	{"DeadTaskIsTakenOnce", deadTaskIsTakenOnce},
	{"UnsettledDeadTasksComeAgain", unsettledDeadTasksComeAgain},
	{"PausedTakerLeavesDeadTasks", pausedTakerLeavesDeadTasks},

	{"ControlReachesItsIdentityOnly", controlReachesItsIdentityOnly},
	{"AnnounceReachesAll", announceReachesAll},
	{"UnreadInboxDropsTheNewest", unreadInboxDropsTheNewest},

	{"LockHasOneHolder", lockHasOneHolder},
	{"LockEndsWithItsLink", lockEndsWithItsLink},
	{"RegisterRemembersServers", registerRemembersServers},

	{"LedgerHasOneOrder", ledgerHasOneOrder},
	{"LedgerIsReadAsItComes", ledgerIsReadAsItComes},
	{"LedgerEndsWithItsLink", ledgerEndsWithItsLink},

	{"PostArrivesAsItWasSent", postArrivesAsItWasSent},
	{"PostsOfBoundChannelsCome", postsOfBoundChannelsCome},
	{"ManyChannelsAreBoundAtOnce", manyChannelsAreBoundAtOnce},
	{"PostComesOnce", postComesOnce},
	{"EveryWorkerGetsAPost", everyWorkerGetsAPost},
	{"PostOfNobodyIsReturned", postOfNobodyIsReturned},
	{"PostsKeepTheirPublishersOrder", postsKeepTheirPublishersOrder},
	{"UnreadPostsDropTheOldest", unreadPostsDropTheOldest},
	{"UnreadPostsAreBoundedInBytes", unreadPostsAreBoundedInBytes},
	{"ChannelsAreOpenedOnce", channelsAreOpenedOnce},
	{"ChannelsEndWithTheirLink", channelsEndWithTheirLink},
	{"ChannelsAreSafeForConcurrentUse", channelsAreSafeForConcurrentUse},
}
